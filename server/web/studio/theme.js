// A classic script in the head, so that a page in the chosen colours is the first that is painted.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("oar.theme");
  } catch {
    // Storage may be forbidden; the system's colours are right then.
  }
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
})();
