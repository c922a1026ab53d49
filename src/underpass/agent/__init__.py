"""What runs on a machine: enrolment, heartbeat, link keeping, terminals, openers."""
