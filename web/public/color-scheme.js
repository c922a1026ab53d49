// Sets light or dark before the first paint. A file of its own, because the CSP allows no
// inline script; it runs before the bundle, so nobody sees a white flash at night.
(() => {
  let wanted = "auto";
  try {
    wanted = localStorage.getItem("underpass.color-scheme") || "auto";
  } catch {
    // Storage may be forbidden; the system's preference is a fine answer.
  }
  const dark =
    wanted === "dark" || (wanted !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
