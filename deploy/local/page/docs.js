// The API reference: Swagger UI with the OpenAPI document of the running service.

window.SwaggerUIBundle({
  url: '/auth/openapi.json',
  dom_id: '#reference',
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // Swagger UI's validator is a server on the internet. The tests validate the document locally.
  validatorUrl: null,
  // A token entered in "Authorize" is kept only as long as the tab.
  persistAuthorization: false,
});
