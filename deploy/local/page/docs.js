// The API reference: Swagger UI with the document that the running service makes of itself.

window.SwaggerUIBundle({
  url: '/auth/openapi.json',
  dom_id: '#reference',
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // It would ask a server on the internet whether the document is valid. The tests do, here.
  validatorUrl: null,
  // A token that is pasted into "Authorize" is gone with the tab.
  persistAuthorization: false,
});
