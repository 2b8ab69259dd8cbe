// Swagger UI writes the descriptions of openapi.json as HTML. It is this server's own text, which DOMPurify cleans before;
// scripts in it would not run either, since the policy takes them from this server's files alone.
globalThis.trustedTypes?.createPolicy("default", { createHTML: (text) => text });

globalThis.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [globalThis.SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
