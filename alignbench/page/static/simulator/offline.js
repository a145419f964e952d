// The simulator in a file of its own: the data lies in it.
import { Simulator } from "./view.js";

const data = JSON.parse(document.getElementById("data").textContent);
document.getElementById("simulator").hidden = false;
document.getElementById("status").hidden = true;
globalThis.simulator = new Simulator(data, {});
