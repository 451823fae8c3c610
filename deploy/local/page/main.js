// Entry point of the demo page. Useful for your own application: session.js (tokens in memory, one refresh at a time),
// hosted.js (OAuth with PKCE) and api.js (errors by code).

import { inWords, onRequest } from './api.js';
import { announce } from './dom.js';
import * as hosted from './hosted.js';
import { wirePasskeys } from './passkeys.js';
import { restore, tried } from './progress.js';
import * as requests from './requests.js';
import * as session from './session.js';
import { LOGGED_OUT, open, wireSignedIn } from './signed-in.js';
import { show, wireSignedOut } from './signed-out.js';

function signIn(answer, how) {
  session.begin(answer, how);
  tried('login');
  announce('You are signed in.');
  open();
}

restore();
requests.wireRequests();
onRequest(requests.add);
wireSignedOut(signIn);
wirePasskeys(signIn);
wireSignedIn((message, kind) => {
  announce(message, { kind });
  show('login');
});

const back = hosted.returned();
if (back?.loggedOut) {
  announce(LOGGED_OUT);
  show('login');
} else if (back) {
  try {
    const answer = await hosted.finish(back);
    tried('hosted');
    signIn(answer, 'signed in on the hosted page');
  } catch (error) {
    announce(error instanceof hosted.NotOurs
      ? 'This response of the hosted page does not belong to a sign-in from this tab. Sign in again.'
      : inWords(error), { kind: 'bad' });
    show('login');
  }
} else if (await resumed()) {
  tried('reload');
  open();
} else {
  show('register', { focus: false });
}

/** `true` if the browser has a session in cookies. */
async function resumed() {
  try {
    return await session.resume();
  } catch (error) {
    announce(inWords(error), { kind: 'bad' });
    return false;
  }
}
