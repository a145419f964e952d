// The optimum of E[r] - beta KL from samples of the SFT model: pi(y|x) = pi_sft(y|x) exp(r(x,y)/beta) / Z(x), by weights that are
// normalised for each prompt. Everything here is a function of arrays; nothing knows the page.

export const ENOUGH = 20; // effective samples below which a gauge says nothing
export const STRONGEST = 0.01; // the coefficient that stands for "none": below it samples say nothing in any case
export const NEAR_NONE = 1e-6; // the same where nothing is sampled
const UNKNOWN = 65535;

/** A column as columns.py wrote it. */
export function decoded(column) {
  if (column.values) return Float64Array.from(column.values, (value) => value ?? NaN);
  const bytes = Uint8Array.from(atob(column.data), (c) => c.charCodeAt(0));
  const places = new Uint16Array(bytes.buffer);
  return Float64Array.from(places, (place) => (place === UNKNOWN ? NaN : column.low + column.step * place));
}

/** Rows of responses: `starts[p]` to `starts[p + 1]` are those of prompt p, `prior` their share of its samples. Where all responses are
 * written down `prior` are their probabilities, which is as if each had been drawn without end. */
export function samples(packed) {
  const starts = [0];
  for (const size of packed.sizes) starts.push(starts.at(-1) + size);
  const prior = packed.prior ? decoded(packed.prior) : new Float64Array(packed.texts.length);
  const counts = packed.prior ? new Float64Array(prior.length).fill(Infinity) : decoded(packed.counts);
  if (!packed.prior) eachPrompt(starts, (from, to) => {
    let total = 0;
    for (let i = from; i < to; i++) total += counts[i];
    for (let i = from; i < to; i++) prior[i] = counts[i] / total;
  });
  const columns = Object.fromEntries(Object.entries(packed.columns).map(([name, column]) => [name, decoded(column)]));
  return { starts, counts, prior, texts: packed.texts, columns };
}

export function eachPrompt(starts, visit) {
  for (let p = 0; p + 1 < starts.length; p++) visit(starts[p], starts[p + 1], p);
}

/** Mean 0 and deviation 1 over the samples, as a learned reward is normalised. */
export function standardised(values, set) {
  const prompts = set.starts.length - 1;
  let mean = 0, square = 0;
  values.forEach((v, i) => (mean += (set.prior[i] * v) / prompts));
  values.forEach((v, i) => (square += (set.prior[i] * (v - mean) ** 2) / prompts));
  const deviation = Math.sqrt(square) > 1e-9 ? Math.sqrt(square) : 1;
  return { values: values.map((v) => (v - mean) / deviation), mean, deviation };
}

/** Weights of the tilted policy. `beta` may be Infinity: the SFT model itself. */
export function tilted(reward, beta, set) {
  return perPrompt(set, (weights, from, to) => {
    let top = -Infinity;
    for (let i = from; i < to; i++) top = Math.max(top, reward[i] / beta);
    for (let i = from; i < to; i++) weights[i] = set.prior[i] * Math.exp(reward[i] / beta - top);
  });
}

/** Weights of the best of n samples: among equals in proportion to the SFT model (Beirami et al., arXiv 2401.01879). */
export function bestOf(reward, n, set) {
  return perPrompt(set, (weights, from, to) => {
    const order = Array.from({ length: to - from }, (_, i) => from + i).sort((a, b) => reward[a] - reward[b]);
    let below = 0;
    for (let k = 0; k < order.length; ) {
      let end = k, level = 0;
      while (end < order.length && reward[order[end]] - reward[order[k]] < 1e-9) level += set.prior[order[end++]];
      const share = ((below + level) ** n - below ** n) / level;
      for (; k < end; k++) weights[order[k]] = share * set.prior[order[k]];
      below += level;
    }
  });
}

/** `fill(weights, from, to)` for each prompt, then normalised; with the KL, the effective samples and the likeliest response of each. */
function perPrompt(set, fill) {
  const weights = new Float64Array(set.prior.length);
  const kl = [], ess = [], top = [];
  eachPrompt(set.starts, (from, to) => {
    fill(weights, from, to);
    let total = 0, divergence = 0, squares = 0, likeliest = 0;
    for (let i = from; i < to; i++) total += weights[i];
    for (let i = from; i < to; i++) {
      const w = (weights[i] /= total);
      if (w > 0) divergence += w * Math.log(w / set.prior[i]);
      squares += (w * w) / set.counts[i];
      likeliest = Math.max(likeliest, w);
    }
    kl.push(Math.max(divergence, 0));
    ess.push(1 / squares);
    top.push(likeliest);
  });
  return { weights, kl, ess, top };
}

export function mean(values) {
  const known = values.filter((v) => !Number.isNaN(v));
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : NaN;
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** The mean of a column under weights, prompt by prompt (`only`: of which), NaN where it does not apply. */
export function expected(column, weights, set, only = () => true) {
  const means = [];
  eachPrompt(set.starts, (from, to, p) => {
    if (!only(p)) return;
    let mass = 0, sum = 0;
    for (let i = from; i < to; i++) {
      if (Number.isNaN(column[i])) continue;
      mass += weights[i];
      sum += weights[i] * column[i];
    }
    means.push(mass > 0 ? sum / mass : NaN);
  });
  return mean(means);
}

/** Different responses among `draws`, on average over the prompts. */
export function unique(weights, set, draws = 8) {
  const found = [];
  eachPrompt(set.starts, (from, to) => {
    let sum = 0;
    for (let i = from; i < to; i++) sum += 1 - (1 - weights[i]) ** draws;
    found.push(sum);
  });
  return mean(found);
}

/** All that the gauges show of one policy. `wrong(p)`: whether the user of prompt p has a wrong opinion. */
export function measured(found, reward, set, wrong) {
  const { weights, kl, ess, top } = found;
  const { gold, correct, agrees, length, logprob } = set.columns;
  const far = mean(kl);
  return {
    proxy: expected(reward, weights, set),
    gold: expected(gold, weights, set),
    kl: far,
    // -E[log pi] = -E[log pi_sft] - KL: log pi is log pi_sft plus the log-ratio, whose mean is the KL.
    entropy: Math.max(-expected(logprob, weights, set) - far, 0),
    agreement: expected(agrees, weights, set, wrong),
    accuracy: expected(correct, weights, set),
    length: expected(length, weights, set),
    unique: unique(weights, set),
    effective: median(ess),
    likeliest: mean(top),
  };
}

/** Samples of no prompt at all. */
export const NOTHING = { starts: [0], counts: [], prior: new Float64Array(0), texts: [], columns: {} };

/** Weights by which a reward is nearest to a sum of the features, within prompts, by least squares. */
export function asSum(reward, features, set) {
  const centred = [...features, reward].map((column) => {
    const out = new Float64Array(column.length);
    eachPrompt(set.starts, (from, to) => {
      let m = 0;
      for (let i = from; i < to; i++) m += set.prior[i] * column[i];
      for (let i = from; i < to; i++) out[i] = column[i] - m;
    });
    return out;
  });
  const k = features.length, target = centred[k];
  const dot = (a, b) => a.reduce((sum, v, i) => sum + set.prior[i] * v * b[i], 0);
  const rows = features.map((_, a) => [...features.map((_, b) => dot(centred[a], centred[b]) + (a === b ? 1e-6 : 0)), dot(centred[a], target)]);
  for (let a = 0; a < k; a++) {
    for (let b = 0; b < k; b++) {
      if (a === b) continue;
      const factor = rows[b][a] / rows[a][a];
      for (let c = a; c <= k; c++) rows[b][c] -= factor * rows[a][c];
    }
  }
  return rows.map((row, a) => row[k] / row[a]);
}

/** Of each part of a reward: what `measure` gives of the policy that is best without it. */
export function without(parts, reward, beta, set, measure) {
  return parts.map(({ weight, column }) => {
    const rest = reward.map((v, i) => v - weight * column[i]);
    return weight ? measure(tilted(rest, beta, set).weights) : NaN;
  });
}

/** A generator of numbers in [0, 1) from a seed (mulberry32): the same draws for the same seed. */
export function chances(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Rows of one prompt, drawn by weights. */
export function drawn(weights, from, to, n, chance) {
  return Array.from({ length: n }, () => {
    let left = chance();
    for (let i = from; i < to; i++) if ((left -= weights[i]) < 0) return i;
    return to - 1;
  });
}
