// Keeps the overview's counts of live calls true while the page is open.
const live = document.querySelector('[data-figure="live"]');
const slots = document.querySelector('[data-figure="slots"]');

const source = new EventSource("/api/v1/live/events");
source.addEventListener("figures", (event) => {
  const calls = new Set(JSON.parse(event.data).items.map((one) => one.call_sid));
  const text = calls.size.toLocaleString("en");
  if (live.textContent !== text) live.textContent = text;
  if (slots.textContent !== text) slots.textContent = text;
});
