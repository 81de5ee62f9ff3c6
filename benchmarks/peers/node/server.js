// A media stream service in Node: each frame of a Twilio call becomes one XADD.
import Fastify from "fastify";
import websocket from "@fastify/websocket";
import { Redis } from "ioredis";
import { toPcm16 } from "./mulaw.js";

const MAX_ENTRIES = 3000; // a minute

const app = Fastify({ logger: { level: "warn" } });
const redis = new Redis(process.env.REDIS_URL, {
  enableAutoPipelining: process.env.AUTO_PIPELINING === "true",
});
redis.on("error", (error) => app.log.error(error));

await app.register(websocket, { options: { perMessageDeflate: false } });

app.get("/twilio-media", { websocket: true }, (socket) => {
  let key = "";

  function publish({ sequenceNumber, media }) {
    const audio = toPcm16(Buffer.from(media.payload, "base64"));
    redis
      .xadd(
        key, "MAXLEN", "~", MAX_ENTRIES, "*",
        "seq", sequenceNumber, "ts", media.timestamp, "track", media.track, "audio", audio,
      )
      .catch((error) => app.log.error(error));
  }

  socket.on("message", (data) => {
    let message;
    try {
      message = JSON.parse(data);
    } catch (error) {
      app.log.warn(error);
      return;
    }
    switch (message.event) {
      case "media":
        publish(message);
        break;
      case "start":
        key = `audio:{${message.start.streamSid}}`;
        break;
      case "stop":
        socket.close();
        break;
    }
  });
  socket.on("error", (error) => app.log.warn(error));
});

process.once("SIGTERM", async () => {
  await app.close();
  await redis.quit();
});

await app.listen({ host: process.env.HOST, port: Number(process.env.PORT) });
