"use strict";
// Everything shown here came out of models and runs: it is set as text, never as HTML.
(() => {
  const root = document.documentElement;
  const failed = (what) => { root.dataset.errors = (root.dataset.errors || "") + what + "\n"; };
  addEventListener("error", (event) => failed(event.message || "could not load " + event.target.tagName), true);
  addEventListener("securitypolicyviolation", (event) => failed("blocked: " + event.violatedDirective));

  const { columns, prompts } = JSON.parse(document.getElementById("generations-data").textContent);
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const choice = document.getElementById("prompt");
  const show = (index) => {
    const { messages, responses } = prompts[index];
    choice.selectedIndex = index;
    document.getElementById("messages").replaceChildren(...messages.map(([role, content]) => {
      const message = element("div", "message");
      message.append(element("span", "role", role), element("bdi", "said", content));
      return message;
    }));
    document.getElementById("responses").replaceChildren(...columns.map((name, column) => {
      const card = element("div", "card");
      card.append(element("h3", "", name));
      for (const { text, note } of responses[column]) {
        card.append(element("bdi", "said", text), element("div", "note", note));
      }
      if (!responses[column].length) card.append(element("div", "note", "was not asked this"));
      return card;
    }));
  };

  if (prompts.length) {
    prompts.forEach(({ title }, index) => choice.append(new Option(title, index)));
    choice.addEventListener("change", () => show(choice.selectedIndex));
    const step = (by) => () => show((choice.selectedIndex + by + prompts.length) % prompts.length);
    document.getElementById("previous").addEventListener("click", step(-1));
    document.getElementById("next").addEventListener("click", step(1));
    show(0);
  }

  addEventListener("load", () => {
    const images = [...document.images];
    root.dataset.plots = images.filter((image) => image.complete && image.naturalWidth > 0).length;
  });
  root.dataset.script = "done";
})();
