// Enqueues the pushes, in batches. Argument: the order as JSON.
import { Queue } from "bullmq";

const order = JSON.parse(process.argv[2]);
const queue = new Queue("push", { connection: { host: "127.0.0.1", port: order.redis } });
const BATCH = 1000;

for (let first = 0; first < order.tokens; first += BATCH) {
  const jobs = [];
  for (let number = first; number < Math.min(first + BATCH, order.tokens); number++) {
    const head = `${String(number).padStart(11, "0")}:APA91b`;
    jobs.push({
      name: "push",
      data: {
        token: head.padEnd(order.tokenCharacters, "x"),
        tag: crypto.randomUUID(),
        title: order.title,
        body: order.body,
      },
      opts: { attempts: 3, backoff: { type: "exponential", delay: 1000 }, removeOnComplete: true },
    });
  }
  await queue.addBulk(jobs);
}
console.log(JSON.stringify(await queue.getJobCounts("waiting")));
await queue.close();
