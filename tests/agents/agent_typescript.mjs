// An MCP client with the official SDK for TypeScript, as an application uses it. `agents.py` describes how a test talks
// to it.
//
// `agent_typescript.mjs URL REDIRECT_URI`

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The packages are in tests/tools/node, not beside this file.
const require = createRequire(new URL("../tools/node/package.json", import.meta.url));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { UnauthorizedError } = require("@modelcontextprotocol/sdk/client/auth.js");

const [url, redirectUri] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function say(message) {
    process.stdout.write(`${JSON.stringify(message)}\n`);
}

/** The next message of the test; null at the end of the input. */
async function hear() {
    const { value, done } = await lines.next();
    return done ? null : JSON.parse(value);
}

/** Keeps what the SDK stores, in memory, and sends the user to the hosted page. */
const stored = {};
const provider = {
    redirectUrl: redirectUri,
    clientMetadata: {
        client_name: "test agent",
        redirect_uris: [redirectUri],
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "none",
    },
    state: () => (stored.state = crypto.randomUUID()),
    clientInformation: () => stored.client,
    saveClientInformation: (client) => (stored.client = client),
    tokens: () => stored.tokens,
    saveTokens: (tokens) => (stored.tokens = tokens),
    codeVerifier: () => stored.verifier,
    saveCodeVerifier: (verifier) => (stored.verifier = verifier),
    redirectToAuthorization: (authorization) => say({ open: authorization.href }),
    invalidateCredentials: (scope) => {
        if (scope === "all" || scope === "client") delete stored.client;
        if (scope === "all" || scope === "tokens") delete stored.tokens;
    },
};

async function reportingFetch(target, init) {
    const response = await fetch(target, init);
    const { origin, pathname } = new URL(target);
    const grant = pathname.endsWith("/token") ? new URLSearchParams(init.body).get("grant_type") : null;
    const challenge = response.headers.get("www-authenticate");
    say({ http: [init?.method ?? "GET", origin + pathname, response.status], challenge, grant });
    return response;
}

const transportOptions = { authProvider: provider, fetch: reportingFetch };
let transport;
const client = new Client({ name: "test agent", version: "1" });

/** Does the action again after the user has signed in, if the SDK asks for that. */
async function withSignIn(action) {
    try {
        return await action();
    } catch (error) {
        if (!(error instanceof UnauthorizedError)) throw error;
        const { searchParams } = new URL((await hear()).redirected);
        if (searchParams.get("state") !== stored.state) throw new Error("another state");
        await transport.finishAuth(searchParams.get("code") ?? "");
        return await action();
    }
}

/** Reports the result of the action, or its error. */
async function attempt(action) {
    try {
        say({ result: await withSignIn(action) });
        return true;
    } catch (error) {
        say({ error: `${error.constructor.name}: ${error.errorCode ?? ""} ${error.message}` });
        return false;
    }
}

async function connect() {
    transport = new StreamableHTTPClientTransport(new URL(url), transportOptions); // one starts only once
    await client.connect(transport);
    const { tools } = await client.listTools();
    const names = tools.map((tool) => tool.name);
    return { revision: transport.protocolVersion, tools: names, client_id: stored.client.client_id };
}

if (await attempt(connect)) {
    for (let message = await hear(); message !== null; message = await hear()) {
        const [name, args] = message.call;
        await attempt(async () => (await client.callTool({ name, arguments: args })).structuredContent);
    }
}
process.exit();
