// SPDX-License-Identifier: Apache-2.0
// The theme draws Mermaid diagrams with an object of this name, and without one it fetches the
// library before it starts the search. This one fetches the library when a diagram is drawn, and
// shows the diagram's source if that fails.
window.mermaid = {
  initialize(options) {
    this.options = options;
  },
  async render(id, source) {
    try {
      const url = "https://unpkg.com/mermaid@11/dist/mermaid.esm.min.mjs";
      const library = (await import(url)).default;
      library.initialize(this.options);
      return await library.render(id, source);
    } catch {
      const shown = document.createElement("pre");
      shown.style.overflow = "auto";
      shown.textContent = source;
      return { svg: shown.outerHTML };
    }
  },
};
