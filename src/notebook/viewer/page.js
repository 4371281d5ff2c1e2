// The elements of an output. Where scripts do not run or are not trusted, it is only its heading and the picture. The script creates the rest.
function wavemeshElement(tag, css, parent, props) {
  const e = document.createElement(tag);
  if (css) e.style.cssText = css;
  Object.assign(e, props || {});
  if (parent) parent.appendChild(e);
  return e;
}

const wavemeshRow = parent => wavemeshElement('div', 'display:flex;flex-wrap:wrap;align-items:center;gap:4px 14px;padding-top:5px', parent);

function wavemeshPage(root, meta) {
  const stage = root.querySelector('[data-stage]'), still = stage.querySelector('img');
  stage.style.cssText = `position:relative;width:100%;aspect-ratio:${meta.width}/${meta.height};overflow:hidden;border-radius:4px`;
  still.style.cssText = 'position:absolute;width:100%';
  const details = wavemeshElement('details', 'margin-top:4px', root), summary = wavemeshElement('summary', 'cursor:pointer', details), note = wavemeshElement('span', '', summary);
  note.dataset.note = '';
  summary.append(' · drag turns, shift drag moves, wheel zooms after a click · controls');
  const player = meta.frames.length > 1 ? wavemeshRow(null) : null;
  if (player) root.insertBefore(player, details);
  return { stage, still, details, player, say: text => { note.textContent = text; } };
}
