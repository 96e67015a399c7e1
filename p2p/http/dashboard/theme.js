// Light or dark, as chosen here before: set before anything is painted.
(() => {
  const chosen = localStorage.getItem("yuma-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
