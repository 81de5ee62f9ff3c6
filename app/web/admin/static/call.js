// A live call's own page: listening, and speaking.
import { listening } from "./listening.js";
import { speaking } from "./speaking.js";

for (const acts of document.querySelectorAll("[data-call]")) {
  const said = acts.querySelector(".said");
  listening(
    acts.querySelector(".listen"),
    acts.querySelector(".heard"),
    said,
    acts.dataset.call,
    acts.dataset.query,
  );
  const button = acts.querySelector(".speak");
  if (button) {
    speaking(button, acts.querySelector(".silence"), said, acts.dataset.call, acts.dataset.query);
  }
  // Until here they would have done nothing.
  for (const ready of acts.querySelectorAll("button[disabled]")) ready.disabled = false;
}
