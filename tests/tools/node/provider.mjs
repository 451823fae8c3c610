// An OpenID provider in the place of Cognito's hosted pages, for tests: `oidc-provider`, a certified implementation, with
// the paths and the claims of Cognito. Unlike the emulator's hosted pages it has a session of its own, so a second sign-in
// needs no password, and signing out there is a step of its own.
//
// `provider.mjs CONFIG` takes JSON: `client`, `callbacks`, `logouts`, `tokenSeconds`, `users` (passwords by name), and
// `ignoresPrompt` for a provider that does not know `prompt`. It listens on a free loopback port and prints
// `listening on N`. The URL of that port is its issuer.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

import Provider, { interactionPolicy } from 'oidc-provider';

const { client, callbacks, logouts, tokenSeconds, users, ignoresPrompt } = JSON.parse(process.argv[2]);

const SCOPES = ['openid', 'email', 'profile', 'aws.cognito.signin.user.admin'];
const GROUPS = ['readers'];

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig', kid: 'provider' };

const now = () => Math.floor(Date.now() / 1000);

/** Time of the sign-in that a token comes from. */
const authTime = (ctx) => ctx.oidc.entities.AuthorizationCode?.authTime ?? ctx.oidc.session?.authTime() ?? now();

// Users do not consent: the client is of the same organization, as a client of a user pool is.
const policy = interactionPolicy.base();
policy.remove('consent');

const provider = new Provider(issuer, {
  clients: [{
    client_id: client, token_endpoint_auth_method: 'none', grant_types: ['authorization_code'], response_types: ['code'],
    redirect_uris: callbacks, post_logout_redirect_uris: logouts,
  }],
  jwks: { keys: [key] },
  cookies: { keys: [randomUUID()] },
  routes: {
    authorization: '/oauth2/authorize', token: '/oauth2/token', jwks: '/.well-known/jwks.json', end_session: '/logout',
  },
  interactions: { policy, url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  scopes: SCOPES,
  claims: { openid: ['sub', 'token_use', 'auth_time', 'cognito:username'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  findAccount: (ctx, name) => ({
    accountId: name,
    claims: () => ({
      sub: name, token_use: 'id', auth_time: authTime(ctx), 'cognito:username': name, email: `${name}@example.com`,
      email_verified: true,
    }),
  }),
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope(SCOPES.join(' '));
    grant.addResourceScope(issuer, SCOPES.join(' '));
    await grant.save();
    return grant;
  },
  ttl: { AccessToken: tokenSeconds, IdToken: tokenSeconds },
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: false },
    // Access tokens are JWTs if they are for a resource.
    resourceIndicators: {
      enabled: true,
      defaultResource: () => issuer,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: SCOPES.join(' '), accessTokenFormat: 'jwt', accessTokenTTL: tokenSeconds, jwt: { sign: { alg: 'RS256' } },
      }),
    },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => {
        ctx.body = page('Sign out', `${form}<button form="op.logoutForm" name="logout" value="yes">Yes, sign me out</button>`);
      },
    },
  },
  formats: {
    customizers: {
      jwt(ctx, token, jwt) {
        Object.assign(jwt.payload, {
          token_use: 'access', username: token.accountId, auth_time: authTime(ctx), 'cognito:groups': GROUPS,
        });
      },
    },
  },
});

const page = (title, content) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title></head><body><main><h1>${title}</h1>
${content}
</main></body></html>`;

const form = (uid, wrong) => page('Sign in', `${wrong ? '<p role="alert">Wrong name or password.</p>' : ''}
<form method="post" action="/interaction/${uid}">
<label>Username <input name="username" autocomplete="username"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<button>Sign in</button>
</form>`);

provider.use(async (ctx, next) => {
  // Cognito calls it `logout_uri`.
  if (ctx.path === '/logout' && ctx.query.logout_uri) {
    ctx.query = { client_id: ctx.query.client_id, post_logout_redirect_uri: ctx.query.logout_uri };
  }
  if (ignoresPrompt && ctx.path === '/oauth2/authorize') {
    const { prompt: _, ...query } = ctx.query;
    ctx.query = query;
  }
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { uid } = await provider.interactionDetails(ctx.req, ctx.res);
  if (ctx.method !== 'POST') {
    ctx.body = form(uid, false);
    return undefined;
  }
  let text = '';
  for await (const piece of ctx.req) text += piece;
  const sent = new URLSearchParams(text);
  const name = sent.get('username');
  if (!Object.hasOwn(users, name) || users[name] !== sent.get('password')) {
    ctx.body = form(uid, true);
    return undefined;
  }
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, { login: { accountId: name } }));
  ctx.status = 303;
  return undefined;
});

provider.on('server_error', (_ctx, error) => console.error(error));
server.on('request', provider.callback());
console.log(`listening on ${port}`);
