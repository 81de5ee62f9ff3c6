// Speaks into a live call: what the microphone hears goes to the API, piece by piece.

const RATE = 16000;
// Pieces that wait to be sent; beyond it the line is too slow to speak over.
const MOST_WAITING = 20;
const ANSWER_SECONDS = 15;
const SILENCE = new Int16Array(160);

/** Let `button` start and stop speaking, and `silence` end all speech; `said` tells what happens. */
export function speaking(button, silence, said, callSid, query) {
  const call = new Call(callSid, query, button.dataset.csrf);
  let speech = null;
  button.addEventListener("click", () => {
    if (speech) {
      speech.stop();
      return;
    }
    speech = new Speech(call, (words) => (said.textContent = words));
    show(button, true);
    speech.run().finally(() => {
      speech = null;
      show(button, false);
    });
  });
  silence.addEventListener("click", async () => {
    speech?.fail(new Error("Silenced."));
    try {
      await call.tell("clear");
      said.textContent = "Silenced.";
    } catch (error) {
      said.textContent = error.message;
    }
  });
}

function show(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
  button.textContent = pressed ? "Stop speaking" : "Speak into this call";
}

class Call {
  constructor(callSid, query, csrf) {
    const call = `/api/v1/calls/${encodeURIComponent(callSid)}`;
    this.url = (what, more = {}) => {
      const asked = new URLSearchParams(query);
      for (const [name, value] of Object.entries(more)) asked.set(name, value);
      return `${call}/${what}?${asked}`;
    };
    this.headers = { "X-CSRF-Token": csrf, "Content-Type": "application/octet-stream" };
  }

  /** Tell the service something; gives the id by which an event answers. */
  async tell(what, more = {}, body = null) {
    const asked = { method: "POST", headers: this.headers, body };
    const answer = await fetch(this.url(what, more), asked);
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(told.detail || "The call cannot be spoken into.");
    return told.id;
  }

  /** Wait for what came of a command. */
  async answer(id) {
    for (let second = 0; second < ANSWER_SECONDS; second++) {
      await new Promise((then) => setTimeout(then, second ? 1000 : 300));
      const answer = await fetch(this.url("events"), { cache: "no-store" });
      const found = answer.ok ? (await answer.json()).items : [];
      const event = found.find((one) => one.data.id === id);
      if (event?.event === "stream.error") return `Not heard: ${event.data.reason}.`;
      if (event) return { true: "Heard.", false: "Silenced." }[event.data.heard] || "Said.";
    }
    return "Said; the carrier has not told whether it was heard.";
  }
}

class Speech {
  constructor(call, tell) {
    Object.assign(this, { call, tell, waiting: 0, sending: Promise.resolve(), failed: null });
    this.stopped = new Promise((stop) => (this.stop = stop));
  }

  async run() {
    try {
      await this.open();
      this.tell("You are heard in the call.");
      await this.stopped;
      this.close();
      await this.sending;
      if (this.failed) throw this.failed;
      const rate = { sample_rate: RATE };
      this.tell(await this.call.answer(await this.call.tell("play", rate, SILENCE)));
    } catch (error) {
      this.tell(error.name === "NotAllowedError" ? "The microphone is not allowed." : error.message);
    } finally {
      this.close();
    }
  }

  async open() {
    if (!navigator.mediaDevices) throw new Error("A microphone can be had over https only.");
    this.source = await navigator.mediaDevices.getUserMedia({ audio: true });
    this.context = new AudioContext({ sampleRate: RATE });
    await this.context.audioWorklet.addModule(new URL("./microphone.js", import.meta.url));
    const microphone = new AudioWorkletNode(this.context, "microphone", { numberOfOutputs: 0 });
    microphone.port.onmessage = ({ data }) => this.send(data);
    this.context.createMediaStreamSource(this.source).connect(microphone);
    await this.context.resume();
  }

  send(piece) {
    if (this.failed) return;
    if (++this.waiting > MOST_WAITING) this.fail(new Error("The line to this service is too slow."));
    this.sending = this.sending
      .then(() => this.failed || this.call.tell("play", { sample_rate: RATE, more: true }, piece))
      .then(() => this.waiting--)
      .catch((error) => this.fail(error));
  }

  fail(error) {
    this.failed ||= error;
    this.stop();
  }

  close() {
    this.source?.getTracks().forEach((track) => track.stop());
    if (this.context && this.context.state !== "closed") this.context.close();
  }
}
