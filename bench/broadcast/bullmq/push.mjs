// One push: the body and headers of activities/adapters/channels/fcm.py, over a kept-alive undici pool.
import { Agent, Pool, fetch } from "undici";

export async function pusher({ url, project, connections, expiresAt, client }) {
  const origin = new URL(url).origin;
  const pool = new Pool(origin, { connections, pipelining: 1, keepAliveTimeout: 30_000 });
  const grant = await pool.request({ path: "/token", method: "POST", body: "grant_type=jwt-bearer" });
  const { access_token: accessToken } = await grant.body.json();
  const path = `/v1/projects/${project}/messages:send`;
  const headers = {
    authorization: `Bearer ${accessToken}`,
    "content-type": "application/json",
    "accept-encoding": "identity",
    "user-agent": "bench",
  };
  const agent = new Agent({ connections, pipelining: 1, keepAliveTimeout: 30_000 });
  const exchanges = {
    async request(body) {
      const answer = await pool.request({ path, method: "POST", headers, body });
      return { status: answer.statusCode, said: await answer.body.json() };
    },
    async fetch(body) {
      const answer = await fetch(origin + path, { method: "POST", headers, body, dispatcher: agent });
      return { status: answer.status, said: await answer.json() };
    },
  };
  const exchange = exchanges[client];
  return async ({ token, tag, title, body }) => {
    const life = `${Math.floor(expiresAt - Date.now() / 1000)}`;
    const payload = JSON.stringify({
      message: {
        token,
        notification: { title, body },
        data: {},
        android: { priority: "normal", ttl: `${life}s`, notification: { tag } },
        apns: { headers: { "apns-collapse-id": tag, "apns-expiration": `${expiresAt}` } },
        webpush: { headers: { TTL: life }, notification: { tag } },
      },
    });
    const { status, said } = await exchange(payload);
    if (status !== 200) throw new Error(`FCM ${status}: ${JSON.stringify(said)}`);
    return said.name;
  };
}
