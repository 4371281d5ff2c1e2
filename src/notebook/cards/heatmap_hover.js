const out=root.querySelector('[data-read]'),imgs=[...root.querySelectorAll('img')];
imgs.forEach((img,p)=>{
img.onmousemove=e=>{
const r=Math.min(d.rows.length-1,Math.max(0,Math.floor(e.offsetY/img.height*d.rows.length)));
const c=Math.min(d.columns.length-1,Math.max(0,Math.floor(e.offsetX/img.width*d.columns.length)));
const i=d.held[p].map((h,a)=>a===d.across?d.columns[c]:a===d.down?d.rows[r]:h);
out.textContent='['+i.join(', ')+'] = '+v[p][r*d.columns.length+c];
};
img.onmouseleave=()=>{out.textContent=''};
});
