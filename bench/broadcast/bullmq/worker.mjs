// A worker: `ready` when connected, begins with the first line on standard input, ends with the end of it.
import { createInterface } from "node:readline";
import { Worker } from "bullmq";
import { pusher } from "./push.mjs";

const order = JSON.parse(process.argv[2]);
const push = await pusher(order);
const worker = new Worker("push", (job) => push(job.data), {
  connection: { host: "127.0.0.1", port: order.redis },
  concurrency: order.concurrency,
  autorun: false,
  removeOnComplete: { count: 0 },
});
worker.on("error", (error) => console.error(error));
worker.on("failed", (job, error) => console.error(job?.id, error.message));
await worker.waitUntilReady();
console.log("ready");

const lines = createInterface({ input: process.stdin });
lines.once("line", () => worker.run());
lines.once("close", async () => {
  await worker.close();
  process.exit(0);
});
