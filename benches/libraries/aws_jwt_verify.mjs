// Verifies every token of a file once with aws-jwt-verify, and prints the CPU time per token in microseconds.
import { readFileSync } from "node:fs";
import { CognitoJwtVerifier } from "aws-jwt-verify";

const { jwks, pool, client, tokens } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const verifier = CognitoJwtVerifier.create({ userPoolId: pool, clientId: client, tokenUse: "access" });
verifier.cacheJwks(jwks);
// A server has compiled its code long before: the first tokens only warm up.
for (const token of tokens) verifier.verifySync(token);
const started = process.cpuUsage();
for (const token of tokens) verifier.verifySync(token);
const { user, system } = process.cpuUsage(started);
console.log((user + system) / tokens.length);
