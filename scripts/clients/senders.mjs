// Official senders and receivers of webhooks in Node.
//   node senders.mjs send API SECRET       messages about drift, by each library; JSON of the answers
//   node senders.mjs verify SECRET FILE    deliveries to a subscriber, verified by each library
import {randomUUID} from "node:crypto";
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";

const load = createRequire(`${process.cwd()}/`);
const standardwebhooks = load("standardwebhooks");
const svix = load("svix");
const {CloudEvent, HTTP} = load("cloudevents");
const TYPE = "model.drift_detected";
const versionOf = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
const data = (number) => ({model_type: "lightgbm", symbol: "BTCUSD", detector: "psi", score: 0.2 + number});

function signed(secret, body, Library, prefix) {
  const id = `msg_${randomUUID()}`;
  const now = new Date();
  return {
    [`${prefix}-id`]: id,
    [`${prefix}-timestamp`]: String(Math.floor(now.getTime() / 1000)),
    [`${prefix}-signature`]: new Library(secret).sign(id, now, body),
  };
}

function messages(secret) {
  const plain = {"content-type": "application/json"};
  const made = {};
  const libraries = [
    ["standardwebhooks", standardwebhooks.Webhook, "webhook"],
    ["svix", svix.Webhook, "webhook"],
    ["svix, headers svix-*", svix.Webhook, "svix"],
  ];
  libraries.forEach(([name, Library, prefix], number) => {
    const body = JSON.stringify({type: TYPE, data: data(number)});
    made[name] = {headers: {...plain, ...signed(secret, body, Library, prefix)}, body};
  });
  ["binary", "structured"].forEach((mode, number) => {
    const event = new CloudEvent({type: TYPE, source: "/drill", data: data(number + 3)});
    const message = HTTP[mode](event);
    const body = typeof message.body === "string" ? message.body : JSON.stringify(message.body);
    made[`cloudevents, ${mode}`] = {
      headers: {...message.headers, ...signed(secret, body, standardwebhooks.Webhook, "webhook")},
      body,
    };
  });
  return made;
}

async function send(api, secret) {
  const answers = [];
  for (const [name, {headers, body}] of Object.entries(messages(secret))) {
    const answer = await fetch(`${api}/webhooks/monitor`, {method: "POST", headers, body});
    const version = versionOf(name.split(",")[0]);
    answers.push({client: name, version, status: answer.status, said: await answer.json()});
  }
  return answers;
}

function verify(secret, file) {
  const deliveries = JSON.parse(readFileSync(file));
  const libraries = {standardwebhooks: standardwebhooks.Webhook, svix: svix.Webhook};
  return Object.entries(libraries).map(([name, Library]) => ({
    client: name,
    version: versionOf(name),
    types: deliveries.map(({headers, body}) => new Library(secret).verify(body, headers).type),
  }));
}

const [what, first, second] = process.argv.slice(2);
console.log(JSON.stringify(what === "send" ? await send(first, second) : verify(first, second)));
