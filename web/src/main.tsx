// Entry: styles, language, then the application.

import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "@mantine/spotlight/styles.css";
import "./app/app.css";

import { createRoot } from "react-dom/client";
import { App } from "./app/App";
import { restoreLanguage } from "./i18n";

const root = document.getElementById("root");
// A missing dictionary must not keep the console from starting: English is always there.
void restoreLanguage()
  .catch(() => undefined)
  .then(() => root && createRoot(root).render(<App />));
