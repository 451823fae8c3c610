// The search takes `-`, `:` and other signs for operators: it finds nothing for `--trusted-hops` or `cognito:groups`.
// Readers look for names, so a name becomes words that a section has to have, all of them.
const send = Worker.prototype.postMessage;
const QUERY = 2;

function wordsOf(name) {
  const words = name.split(/[-_:.+^~*]+/).filter((word) => word);
  return words.length > 1 ? words.map((word) => `+${word}`) : words;
}

Worker.prototype.postMessage = function (message, ...rest) {
  if (message?.type === QUERY && typeof message.data === "string") {
    message = { ...message, data: message.data.split(/\s+/).flatMap(wordsOf).join(" ") };
  }
  return send.call(this, message, ...rest);
};
