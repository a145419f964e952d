// The list of projects: who ranks gives a name.
for (const form of document.querySelectorAll("form.enter")) {
  const field = form.elements.name;
  field.value = localStorage.getItem("rank-name") || "";
  field.addEventListener("input", () => field.setCustomValidity(""));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = field.value.trim();
    if (!/^[\p{L}\p{N}_][\p{L}\p{N}\p{M}_ .\-@'’]*$/u.test(name)) {
      field.setCustomValidity("A name has letters, digits, spaces, dots, dashes, ' or @, and begins with a letter or digit.");
      field.reportValidity();
      return;
    }
    localStorage.setItem("rank-name", field.value);
    location.href = `/rank/${form.dataset.project}/as/${encodeURIComponent(name)}`;
  });
}
