// Shows live calls as they come, speak and go.
import { listening, silence } from "./listening.js";

const list = document.getElementById("live");
const nobody = document.getElementById("nobody");
const tally = document.getElementById("tally");
const link = document.getElementById("link");
const rows = new Map();
const SILENCE = -96;
const names = { inbound: "Caller", outbound: "Called party" };
const whole = new Intl.NumberFormat("en");

function clock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const rest = two(seconds % 60);
  return hours ? `${hours}:${two(minutes % 60)}:${rest}` : `${minutes}:${rest}`;
}

function put(row, name, text) {
  const place = row.querySelector(`.${name}`);
  if (place.textContent !== text) place.textContent = text;
  return place;
}

function added(one) {
  const row = document.getElementById("row").content.firstElementChild.cloneNode(true);
  const query = list.dataset.operator ? `?business=${encodeURIComponent(one.business_id)}` : "";
  const path = `/admin/calls/${encodeURIComponent(one.call_sid)}`;
  put(row, "caller", one.from_number || "withheld");
  put(row, "dialled", one.to_number || "unknown");
  put(row, "business", one.business_id);
  put(row, "plan", `plan ${one.plan}`);
  put(row, "sid", `…${one.call_sid.slice(-6)}`).title = one.call_sid;
  row.querySelector(".of").hidden = !list.dataset.operator;
  const to = row.querySelector(".to");
  to.href = path + query;
  to.id = `call-${rows.size}-${one.stream_sid}`;
  row.setAttribute("aria-labelledby", to.id);
  row.dataset.call = one.call_sid;
  const end = row.querySelector("form");
  if (end) {
    // Not there for those who may only watch.
    end.action = `${path}/end${query}`;
    end.querySelector("[name=csrf]").value = list.dataset.csrf;
  }
  const [button, meter, said] = [".listen", ".heard", ".said"].map((at) => row.querySelector(at));
  listening(button, meter, said, one.call_sid, query);
  list.prepend(row);
  return { row, levels: new Map() };
}

function level(shown, track) {
  if (!shown.levels.has(track)) {
    const line = document.getElementById("level").content.firstElementChild.cloneNode(true);
    put(line, "whose", names[track] || track);
    line.querySelector("meter").setAttribute("aria-label", `Level of the ${track} track, dBFS`);
    shown.row.querySelector(".levels").append(line);
    shown.levels.set(track, line);
  }
  return shown.levels.get(track);
}

function updated(shown, one) {
  const row = shown.row;
  shown.began = performance.now() - one.duration_ms;
  put(row, "lag", `${whole.format(one.lag_ms)} ms`);
  put(row, "frames", whole.format(one.received));
  put(row, "gaps", whole.format(one.missing)).classList.toggle("bad", one.missing > 0);
  put(row, "drops", whole.format(one.dropped)).classList.toggle("bad", one.dropped > 0);
  for (const [track, decibels] of Object.entries(one.levels)) {
    const line = level(shown, track);
    const heard = decibels === null ? SILENCE : decibels;
    line.querySelector("meter").value = Math.max(-60, heard);
    put(line, "db", heard <= SILENCE ? "silent" : `${Math.round(heard)} dB`);
  }
}

function show(figures) {
  const before = rows.size;
  const seen = new Set();
  // The newest comes first, and is put on top of those that are there.
  for (const one of [...figures].reverse()) {
    seen.add(one.stream_sid);
    if (!rows.has(one.stream_sid)) rows.set(one.stream_sid, added(one));
    updated(rows.get(one.stream_sid), one);
  }
  for (const [sid, shown] of rows) {
    if (seen.has(sid)) continue;
    silence(shown.row.querySelector(".listen"));
    shown.row.remove();
    rows.delete(sid);
  }
  nobody.hidden = rows.size > 0;
  if (rows.size !== before) {
    tally.textContent = rows.size === 1 ? "1 live call" : `${rows.size} live calls`;
  }
}

setInterval(() => {
  for (const { row, began } of rows.values()) put(row, "time", clock(performance.now() - began));
}, 250);

function said(state, words) {
  if (link.textContent === words) return;
  link.dataset.state = state;
  link.textContent = words;
}

const source = new EventSource("/api/v1/live/events");
source.addEventListener("open", () => said("on", "Following"));
source.addEventListener("figures", (event) => {
  said("on", "Following");
  show(JSON.parse(event.data).items);
});
source.addEventListener("error", () => {
  const over = source.readyState === EventSource.CLOSED;
  said("off", over ? "Signed out, or cut off: load the page again" : "Connection lost; trying again…");
});
