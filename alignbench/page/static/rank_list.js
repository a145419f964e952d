// The list of projects: who ranks gives a name.
for (const form of document.querySelectorAll("form.enter")) {
  const field = form.elements.name;
  field.value = localStorage.getItem("rank-name") || "";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    localStorage.setItem("rank-name", field.value);
    location.href = `/rank/${form.dataset.project}/as/${encodeURIComponent(field.value.trim())}`;
  });
}
