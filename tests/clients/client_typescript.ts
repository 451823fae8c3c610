// A user's journey with a client that is generated from the OpenAPI document: sign up, confirm, sign in, refresh, read the
// profile, get an error, sign out.
//
// `node client_typescript.ts URL EMAIL PASSWORD` prints what it got as JSON. `tsc --strict` checks it before it runs.

import createClient from "openapi-fetch";
import type { components, paths } from "./openapi.ts";

declare const process: { argv: string[] };

type Tokens = components["schemas"]["Tokens"];

const [url = "", email = "", password = ""] = process.argv.slice(2);
const account = createClient<paths>({ baseUrl: url });

/** The data of a success; throws the error otherwise. */
function done<T>(answer: { data?: T; error?: components["schemas"]["Error"] }): T {
    if (answer.data === undefined) throw new Error(`${answer.error?.code}: ${answer.error?.message}`);
    return answer.data;
}

/** The tokens of a sign-in that needs no second factor. */
function tokens(result: components["schemas"]["SignInResult"]): Tokens {
    if (!("accessToken" in result)) throw new Error("a challenge");
    return result;
}

async function mailedCode(): Promise<string> {
    const answer = await fetch(`${url}/mailbox?to=${encodeURIComponent(email)}`);
    const { messages } = (await answer.json()) as { messages: { text: string }[] };
    return /\b\d{6}\b/.exec(messages[0]?.text ?? "")?.[0] ?? "";
}

const registered = done(await account.POST("/auth/register", { body: { email, password, name: "Grace Hopper" } }));
done(await account.POST("/auth/verify", { body: { email, code: await mailedCode() } }));
const first = tokens(done(await account.POST("/auth/login", { body: { email, password } })));
const body = { refreshToken: first.refreshToken ?? "" };
const second = tokens(done(await account.POST("/auth/refresh", { body })));

const headers = { Authorization: `Bearer ${second.accessToken}` };
const profile = done(await account.GET("/auth/me", { headers }));

const wrong = await account.POST("/auth/login", { body: { email, password: `${password}!` } });
const code: components["schemas"]["Error"]["code"] | undefined = wrong.error?.code;
// @ts-expect-error: the types say that a password is missing, as the service does.
const incomplete = await account.POST("/auth/login", { body: { email } });
const field: components["schemas"]["Error"]["field"] | undefined = incomplete.error?.field;

const { scope } = done(await account.POST("/auth/logout", { headers, body: {} }));
const after = await account.GET("/auth/me", { headers });

console.log(JSON.stringify({
    delivery: registered.delivery?.attribute,
    renewed: second.accessToken !== first.accessToken,
    profile: [profile.attributes["email"], profile.attributes["name"]],
    wrong: [wrong.response.status, code],
    incomplete: [incomplete.response.status, incomplete.error?.code, field],
    scope,
    after: [after.response.status, after.error?.code],
}));
