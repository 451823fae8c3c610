// Draws QR codes. The text holds a secret, so it is encoded in the page and is not sent anywhere.

import { encode } from './vendor/uqr.js';

const SVG = 'http://www.w3.org/2000/svg';

/** An SVG of a QR code: dark on light in every colour scheme, with the margin of four modules that scanners need. */
export function drawing(text, label) {
  const { data, size } = encode(text, { ecc: 'M', border: 4 });
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 0 ${size} ${size}`);
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', label);
  svg.setAttribute('shape-rendering', 'crispEdges');
  const path = data.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : ''))).join('');
  for (const [d, fill] of [[`M0 0h${size}v${size}H0z`, '#fff'], [path, '#000']]) {
    const shape = document.createElementNS(SVG, 'path');
    shape.setAttribute('d', d);
    shape.setAttribute('fill', fill);
    svg.append(shape);
  }
  return svg;
}
