"use strict";
// Everything shown here came out of models and runs: it is set as text, never as HTML.
(() => {
  const root = document.documentElement;

  // In the head, so that it sees whatever goes wrong further down: what a test of the page reads.
  const failed = (what) => { root.dataset.errors = (root.dataset.errors || "") + what + "\n"; };
  addEventListener("error", (event) => failed(event.message || "could not load " + event.target.tagName), true);
  addEventListener("securitypolicyviolation", (event) => failed("blocked: " + event.violatedDirective));

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const message = ([role, content]) => {
    const made = element("div", "message");
    made.append(element("span", "role", role), element("bdi", "said", content));
    return made;
  };

  const card = (name, responses) => {
    const made = element("div", "card");
    made.append(element("h3", "", name));
    for (const { text, note } of responses) made.append(element("bdi", "said", text), element("div", "note", note));
    if (!responses.length) made.append(element("div", "note", "was not asked this"));
    return made;
  };

  const sideBySide = ({ columns, prompts }) => {
    const choice = document.getElementById("prompt");
    const show = (index) => {
      const { messages, responses } = prompts[index];
      choice.selectedIndex = index;
      document.getElementById("messages").replaceChildren(...messages.map(message));
      document.getElementById("responses").replaceChildren(...columns.map((name, i) => card(name, responses[i])));
    };
    const step = (by) => () => show((choice.selectedIndex + by + prompts.length) % prompts.length);
    prompts.forEach(({ title }, index) => choice.append(new Option(title, index)));
    choice.addEventListener("change", () => show(choice.selectedIndex));
    document.getElementById("previous").addEventListener("click", step(-1));
    document.getElementById("next").addEventListener("click", step(1));
    show(0);
  };

  addEventListener("DOMContentLoaded", () => {
    const data = JSON.parse(document.getElementById("generations-data").textContent);
    if (data.prompts.length) sideBySide(data);
    root.dataset.script = "done";
  });
  addEventListener("load", () => {
    root.dataset.plots = [...document.images].filter((image) => image.complete && image.naturalWidth > 0).length;
  });
})();
