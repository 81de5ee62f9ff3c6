// What Railway runs: the service, built from ./Dockerfile, and its Redis. `railway config plan`
// shows what would change, `railway config apply` does it: docs/operations.md, "Railway".
import { defineRailway, preserve, project, redis, service } from "railway/iac";

export default defineRailway(() => {
  const store = redis("redis");

  const bridge = service("media-bridge", {
    start: "python -m app serve",
    // Asked while a deployment starts, never after. Not /health/ready: a new version must
    // come up also while Redis is away.
    healthcheck: "/health",
    healthcheckTimeout: 60,
    env: {
      PUBLIC_URL: "https://${{RAILWAY_PUBLIC_DOMAIN}}",
      REDIS_URL: store.env.REDIS_URL,
      // Typed into Railway, and kept as they are there. Whatever else you set there belongs
      // into this list: what is missing here counts as deleted.
      TWILIO_ACCOUNT_SID: preserve(),
      TWILIO_AUTH_TOKEN: preserve(),
      SECRET_KEY: preserve(),
      ADMIN_TOKEN: preserve(),
      METRICS_TOKEN: preserve(),
      // Railway's edge reaches services from these addresses, and names the client in X-Real-IP,
      // which it overwrites; the last address in its X-Forwarded-For is the edge's own.
      TRUSTED_PROXIES: "100.64.0.0/10",
      CLIENT_ADDRESS_HEADER: "X-Real-IP",
      // Live calls outlive a deployment. Railway kills at once unless told to wait.
      DRAIN_SECONDS: "300",
      RAILWAY_DEPLOYMENT_DRAINING_SECONDS: "330",
      RAILWAY_DEPLOYMENT_OVERLAP_SECONDS: "10",
    },
  });

  return project("media-bridge", { resources: [store, bridge] });
});
