// A live call's own page: listening.
import { listening } from "./listening.js";

for (const acts of document.querySelectorAll("[data-call]")) {
  listening(
    acts.querySelector(".listen"),
    acts.querySelector(".heard"),
    acts.querySelector(".said"),
    acts.dataset.call,
    acts.dataset.query,
  );
}
