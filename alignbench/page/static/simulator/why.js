// One sentence for each gauge: why it stands where it stands.
import { expected, mean, tilted, without } from "./mathematics.js";

const TOLD = {
  gold: { column: "gold", digits: 2 },
  agreement: { column: "agrees", share: true },
  accuracy: { column: "correct", share: true },
  length: { column: "length", digits: 1 },
};

/** `parts`: [{label, weight, column}] whose sum the reward is, or comes near; `beta`: of the tilt that goes as far. */
export function sentences({ now, before, parts, reward, beta, set, wrong, method, likeliest }) {
  const found = {
    proxy: moved(now.proxy - before.proxy, 0.02)
      ? `It is what is optimised, so that it can only rise: ${signed(now.proxy - before.proxy, 2)} over the SFT model.`
      : "So strong a penalty leaves the SFT model as it is.",
    kl:
      method === "best"
        ? "The best of n strays no further than log n − (n − 1)/n, whatever the reward."
        : `A nat costs ${beta.toPrecision(2)} of reward, and the policy goes on until one more no longer earns that much.`,
    entropy: moved(now.entropy - before.entropy, 0.05)
      ? `Probability gathers on what the reward likes: the likeliest answer has ${percent(likeliest)} on average, against ${percent(before.likeliest)}.`
      : "The answers are as open as the SFT model's.",
    unique: moved(now.unique - before.unique, 0.1)
      ? `Of 8 answers ${now.unique.toFixed(1)} differ, against ${before.unique.toFixed(1)}: ${now.unique < before.unique ? "the same ones come again" : "rarer ones are reached"}.`
      : "About as many different answers as before.",
  };
  for (const [gauge, { column: name, share, digits }] of Object.entries(TOLD)) {
    const column = set.columns[name];
    if (!column || Number.isNaN(now[gauge])) continue;
    const shown = (v) => (share ? percent(v) : v.toFixed(digits).replace("-", "−"));
    const only = gauge === "agreement" ? wrong : undefined;
    const rest = without(parts, reward, beta, set, (weights) => expected(column, weights, set, only));
    const size = (at) => (Number.isNaN(rest[at]) ? -1 : Math.abs(rest[at] - now[gauge]));
    const k = rest.map((_, at) => at).sort((a, b) => size(b) - size(a))[0] ?? -1;
    if (k < 0 || size(k) < 0 || !moved(rest[k] - now[gauge], share ? 0.01 : 0.05)) {
      found[gauge] = moved(now[gauge] - before[gauge], share ? 0.01 : 0.05)
        ? parts.length ? "Many small preferences of the reward together move it." : "It follows from what the reward pays for, which is no sum of named parts."
        : "Nothing in the reward moves it.";
      continue;
    }
    found[gauge] = `Mostly from what is paid for ${parts[k].label}: without that it would be ${shown(rest[k])}.`;
  }
  return found;
}

/** The coefficient at which a tilt has this KL: best-of-n is explained by the tilt that goes as far. */
export function betaAt(kl, reward, set) {
  let low = 1e-3, high = 1e3;
  for (let step = 0; step < 25; step++) {
    const middle = Math.sqrt(low * high);
    if (mean(tilted(reward, middle, set).kl) > kl) low = middle;
    else high = middle;
  }
  return high;
}

function moved(change, least) {
  return Math.abs(change) >= least;
}

export function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return `${value < 0 ? "−" : "+"}${text}`;
}

export function percent(value) {
  return `${Math.round(100 * value)}%`;
}
