// The text over the picture: axes, colour bar, classes, the step's label and the value at the pointer.
function wavemeshOverlay(view) {
  const { meta, state, stage, center, names } = view;
  function write(cam, ratio) {
    view.worded = false;
    const g = view.overlay.getContext('2d'), w = stage.clientWidth, h = stage.clientHeight;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, w, h);
    g.font = '12px system-ui,sans-serif';
    g.fillStyle = g.strokeStyle = view.colors().ink;
    g.textBaseline = 'middle';
    const mid = view.project(cam, center);
    for (const { axis, at: point, marks } of view.axisEdges(cam)) {
      const at = v => view.project(cam, point(v)), a = at(meta.low[axis]), b = at(meta.high[axis]), length = Math.hypot(b[0] - a[0], b[1] - a[1]);
      if (length < 12) continue;
      let o = [-(b[1] - a[1]) / length, (b[0] - a[0]) / length];
      const m = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      if (o[0] * (m[0] - mid[0]) + o[1] * (m[1] - mid[1]) < 0) o = [-o[0], -o[1]];
      g.textAlign = o[0] > .35 ? 'left' : o[0] < -.35 ? 'right' : 'center';
      const every = Math.max(1, Math.ceil(22 * marks.length / length));
      marks.filter((_, i) => i % every === 0).forEach(v => {
        const p = at(v);
        g.beginPath(); g.moveTo(...p); g.lineTo(p[0] + o[0] * 4, p[1] + o[1] * 4); g.stroke();
        g.fillText(wavemeshNumber(v), p[0] + o[0] * 9, p[1] + o[1] * 11);
      });
      const beyond = Math.max(30, 18 + Math.max(...marks.map(v => g.measureText(wavemeshNumber(v)).width))); // room for the widest tick label
      g.font = 'bold 13px system-ui,sans-serif';
      g.fillText(names[axis], m[0] + o[0] * beyond, m[1] + o[1] * 26);
      g.font = '12px system-ui,sans-serif';
    }
    g.textAlign = 'left';
    if (view.channelOf()) {
      const [low, high] = view.scaleOf(), x = w - 66, top = 34, tall = Math.max(40, h - 80);
      const fill = g.createLinearGradient(0, top + tall, 0, top);
      for (let i = 0; i <= 16; i++) fill.addColorStop(i / 16, `rgb(${state.ramp.slice(i * 255 / 16 * 4 & ~3, (i * 255 / 16 * 4 & ~3) + 3).join()})`);
      g.fillStyle = fill;
      g.fillRect(x, top, 12, tall);
      g.fillStyle = view.colors().ink;
      g.strokeRect(x, top, 12, tall);
      for (const v of wavemeshTicks(low, high, 5)) g.fillText('– ' + wavemeshNumber(v), x + 12, top + tall * (1 - (v - low) / (high - low)));
      g.fillText(meta.channels[state.channel] || '', x - 10, top - 14);
    }
    if (meta.palette) meta.classes.forEach((name, i) => {
      g.fillStyle = `rgb(${meta.palette[i].join()})`;
      g.fillRect(w - 110, 12 + 18 * i, 11, 11);
      g.fillStyle = view.colors().ink;
      g.fillText(name, w - 94, 18 + 18 * i);
    });
    if (view.frames.length > 1) g.fillText(view.frames[state.frame].label, 8, 14);
    if (view.hover) {
      const { hit } = view.hover;
      const text = hit.site ? `x ${hit.site[0]}, y ${hit.site[1]}, z ${hit.site[2]}` : hit.point ? hit.point.map((v, i) => `${names[i]} ${wavemeshNumber(v)}`).join(', ') : `face ${hit.face} near ${hit.position.map(wavemeshNumber).join(', ')}`;
      const full = hit.label ? `${text}: ${hit.label}` : hit.value === null ? text : `${text} = ${wavemeshNumber(hit.value)}`;
      const width = g.measureText(full).width + 12, x = Math.min(view.hover.x + 12, w - width - 4), y = Math.max(view.hover.y - 14, 14);
      g.fillStyle = view.dark() ? 'rgba(40,44,52,.92)' : 'rgba(255,255,255,.92)';
      g.fillRect(x, y - 11, width, 22);
      g.strokeRect(x, y - 11, width, 22);
      g.fillStyle = view.colors().ink;
      g.fillText(full, x + 6, y);
    }
  }
  return { write };
}
