// G.711 mu-law to 16-bit samples, one table for all calls.
const LINEAR = Int16Array.from({ length: 256 }, (_, code) => {
  code = ~code & 0xff;
  const sample = ((((code & 15) << 3) + 132) << ((code >> 4) & 7)) - 132;
  return code & 0x80 ? -sample : sample;
});

export function toPcm16(mulaw) {
  const samples = new Int16Array(mulaw.length);
  for (let at = 0; at < mulaw.length; at++) samples[at] = LINEAR[mulaw[at]];
  return Buffer.from(samples.buffer);
}
