// The simulator behind a server: fetches the samples, which the server may have to make first.
import { get, lines, post } from "../api.js";
import { el } from "../dom.js";
import { watchTrainings } from "./live.js";
import { Simulator } from "./view.js";

const start = new URLSearchParams(location.search).get("start") ?? "";
const status = document.getElementById("status");

async function open() {
  for (;;) {
    const answer = await get(`/simulator/pool?start=${encodeURIComponent(start)}`);
    if (!answer.preparing) return answer;
    status.textContent = `Getting ready, once for this SFT model (about half a minute, some minutes for a pretrained one): ${answer.preparing}`;
    await new Promise((done) => setTimeout(done, 700));
  }
}

try {
  const [{ starts }, data] = await Promise.all([get("/simulator/starts"), open()]);
  const choice = document.getElementById("start");
  for (const { key, label, runs } of starts) {
    choice.append(el("option", { value: key, selected: key === data.key }, `${label} (${runs} ${runs === 1 ? "run" : "runs"})`));
  }
  choice.onchange = () => location.assign(`/simulator?start=${encodeURIComponent(choice.value)}`);
  document.getElementById("simulator").hidden = false;
  status.hidden = true;
  const simulator = new Simulator(data, {
    ask: (text) => post("/simulator/ask", { start: data.key, text }),
    say: (what, told, signal) => lines("/simulator/say", { start: data.key, ...what }, told, signal),
  });
  const form = document.getElementById("own");
  form.onsubmit = async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      document.getElementById("own-error").textContent = "";
      await simulator.answers.ask(form.elements.text.value);
    } catch (error) {
      document.getElementById("own-error").textContent = error.message;
    } finally {
      button.disabled = false;
    }
  };
  watchTrainings(simulator);
} catch (error) {
  status.textContent = error.message;
  status.classList.add("warning");
}
