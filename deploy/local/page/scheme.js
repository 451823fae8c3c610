// Follows the colour scheme of the system: Swagger UI has dark colours if the document has the class `dark-mode`. This
// script is in the head, so the class is set before anything is shown.

const dark = matchMedia('(prefers-color-scheme: dark)');
const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', follow);
follow();
