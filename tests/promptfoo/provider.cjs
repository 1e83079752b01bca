// What promptfoo is given as its model under test, its judge and its embedding model, all from one file of answers.
const { readFileSync } = require('node:fs');

const pairs = JSON.parse(readFileSync(process.env.CROSSCHECK_PAIRS, 'utf8'));
const asked = new Map();

class Answers {
  constructor(options) { this.config = options.config || {}; this.label = options.label; }
  id() { return 'answers'; }
  async callApi(prompt) {
    if (this.config.judge) {
      const id = /#(p\d+)#/.exec(prompt)[1];
      const turn = asked.get(id) || 0;
      asked.set(id, turn + 1);
      return { output: pairs[id].judge[turn] };
    }
    return pairs[prompt].response;
  }
  // Letter counts: enough to compare how nearness is decided, with no model in it.
  async callEmbeddingApi(text) {
    const counts = new Array(26).fill(0);
    for (const char of text.toLowerCase()) {
      const at = char.charCodeAt(0) - 97;
      if (at >= 0 && at < 26) counts[at] += 1;
    }
    return { embedding: counts };
  }
}

module.exports = Answers;
