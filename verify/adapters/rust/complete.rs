//! The whole method of one layer, ADMM included, from Rust and without any crate; `first.rs` is shorter.
//!
//!     rustc --edition 2021 -O complete.rs -o complete
//!     refldnq kit run -- ./complete {in} {out}
//!
//! An input of a case is IN/<step>/<case>/in/<input>.npy, an answer OUT/<step>/<case>/out/<answer>.npy, and who
//! answers stands in OUT/info.json. A step that returns `Err` refuses its inputs.
use std::collections::BTreeMap;
use std::mem::size_of;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// In what all is computed: f32 will do, and info.json says so.
type Real = f64;

/// An array of any type, in C order; codes and counts are converted when they are written.
#[derive(Clone, Default)]
struct Array {
    shape: Vec<usize>,
    data: Vec<Real>,
    text: String,
}
type Named = BTreeMap<String, Array>;
type Answer = Result<Named, String>;
type Step = fn(&Named) -> Answer;

impl Array {
    fn new(shape: &[usize], data: Vec<Real>) -> Array {
        Array { shape: shape.to_vec(), data, text: String::new() }
    }
    fn int(&self, i: usize) -> i64 {
        self.data[i] as i64
    }
}

fn require(holds: bool, what: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(what.to_string())
    }
}

fn named<const N: usize>(pairs: [(&str, Array); N]) -> Named {
    pairs.into_iter().map(|(name, array)| (name.to_string(), array)).collect()
}

// ---- files -------------------------------------------------------------------------------------------------

/// Magic, version, length of the header, header, data.
fn load(file: &Path) -> io::Result<Array> {
    let bytes = fs::read(file)?;
    assert!(bytes.len() > 10 && bytes[6] == 1, "{} must be an .npy file of version 1", file.display());
    let start = 10 + bytes[8] as usize + 256 * bytes[9] as usize;
    let header = String::from_utf8_lossy(&bytes[10..start]).to_string();
    let after = |key: &str| &header[header.find(key).expect(key) + key.len()..];
    let kind = &after("'descr': '")[1..3];
    let inside = after("'shape': (");
    let shape: Vec<usize> =
        inside[..inside.find(')').unwrap()].split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let body = &bytes[start..];
    let data = match kind {
        "f8" => body.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) as Real).collect(),
        "i8" => body.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as Real).collect(),
        "i1" | "b1" => body.iter().map(|&b| b as i8 as Real).collect(),
        _ if kind.starts_with('S') => vec![],
        _ => panic!("{} has the unknown type {kind}", file.display()),
    };
    let text = if kind.starts_with('S') {
        String::from_utf8_lossy(body).trim_end_matches('\0').to_string()
    } else {
        String::new()
    };
    Ok(Array { shape, data, text })
}

fn save(folder: &Path, name: &str, array: &Array) -> io::Result<()> {
    let (kind, body): (String, Vec<u8>) = match name {
        "Q" => ("|i1".into(), array.data.iter().map(|&x| x as i8 as u8).collect()),
        "passes" | "best" => {
            ("<i8".into(), array.data.iter().flat_map(|&x| (x as i64).to_le_bytes()).collect())
        }
        "error" => (format!("|S{}", array.text.len()), array.text.clone().into_bytes()),
        _ => (format!("<f{}", size_of::<Real>()), array.data.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    let shape: String = array.shape.iter().map(|n| format!("{n},")).collect();
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let length = (header.len() + 11).div_ceil(64) * 64 - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).bytes());
    bytes.extend(body);
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{name}.npy")), bytes)
}

// ---- the steps ---------------------------------------------------------------------------------------------

/// (n, P, g, d): rows (c, kh, kw) of every window, the constant 1 last.
fn patches(inputs: &Named) -> Answer {
    let (x, weight, bias) = (&inputs["X"], &inputs["weight_shape"], inputs["bias"].int(0) as usize);
    let (stride, padding, dilation) = (&inputs["stride"], &inputs["padding"], &inputs["dilation"]);
    let (n, g) = (x.shape[0], inputs["groups"].int(0));
    let (per, kh, kw) = (weight.int(2), weight.int(3), weight.int(4));
    let (h, w) = if x.shape.len() == 4 { (x.shape[2] as i64, x.shape[3] as i64) } else { (1, 1) };
    require(x.shape[1] as i64 == g * per, "X must have as many channels as the weight")?;
    let tall = h + padding.int(0) + padding.int(1) - dilation.int(0) * (kh - 1) - 1;
    let wide = w + padding.int(2) + padding.int(3) - dilation.int(1) * (kw - 1) - 1;
    require(tall >= 0 && wide >= 0, "the window must fit into the padded image")?;
    let (ho, wo) = (tall / stride.int(0) + 1, wide / stride.int(1) + 1);
    let mut data = vec![];
    for image in 0..n as i64 {
        for p in 0..ho * wo {
            for group in 0..g {
                for r in 0..per * kh * kw {
                    let (c, i, j) = (r / (kh * kw), r / kw % kh, r % kw);
                    let row = p / wo * stride.int(0) + i * dilation.int(0) - padding.int(0);
                    let column = p % wo * stride.int(1) + j * dilation.int(1) - padding.int(2);
                    let inside = 0 <= row && row < h && 0 <= column && column < w;
                    let place = ((image * g * per + group * per + c) * h + row) * w + column;
                    data.push(if inside { x.data[place as usize] } else { 0.0 });
                }
                data.resize(data.len() + bias, 1.0);
            }
        }
    }
    let shape = [n, (ho * wo) as usize, g as usize, (per * kh * kw) as usize + bias];
    Ok(named([("patches", Array::new(&shape, data))]))
}

/// (2/n) times the sum of the outer products of all patches.
fn hessian(inputs: &Named) -> Answer {
    let rows = &patches(inputs)?["patches"];
    let (n, g, d) = (rows.shape[0], rows.shape[2], rows.shape[3]);
    require(n > 0, "X must have images")?;
    let mut h = vec![0.0; g * d * d];
    for (index, x) in rows.data.chunks_exact(d).enumerate() {
        for (i, line) in h[index % g * d * d..][..d * d].chunks_exact_mut(d).enumerate() {
            line.iter_mut().zip(x).for_each(|(sum, other)| *sum += x[i] * other);
        }
    }
    h.iter_mut().for_each(|value| *value *= 2.0 / n as Real);
    Ok(named([("H", Array::new(&[g, d, d], h))]))
}

/// (g, d, m): the weights of an output channel are a column, its bias is the last entry.
fn pack(inputs: &Named) -> Answer {
    let (weight, bias, g) = (&inputs["weight"], &inputs["bias"].data, inputs["groups"].int(0) as usize);
    let (units, m) = (weight.shape[0], weight.shape[0] / g);
    require(units % g == 0, "the output channels must fill the groups")?;
    require(bias.is_empty() || bias.len() == units, "bias must have one entry for each output channel")?;
    let rows = weight.data.len() / units;
    let d = rows + usize::from(!bias.is_empty());
    let mut packed = vec![0.0; units * d];
    for unit in 0..units {
        let column = weight.data[unit * rows..][..rows].iter().chain(bias.get(unit));
        for (r, value) in column.enumerate() {
            packed[(unit / m * d + r) * m + unit % m] = *value;
        }
    }
    Ok(named([("W", Array::new(&[g, d, m], packed))]))
}

/// (H + ρI) Θ = H W̄ + ρ(G - λ), by L D Lᵀ.
fn solve(h: &[Real], w: &Array, g: &[Real], lam: &[Real], rho: Real) -> Result<Vec<Real>, String> {
    require(rho > 0.0, "rho must be positive")?;
    let (d, m) = (w.shape[0], w.shape[1]);
    let mut l = h.to_vec(); // D stands on the diagonal
    for i in 0..d {
        l[i * d + i] += rho;
        for j in 0..=i {
            let sum: Real = (0..j).map(|k| l[i * d + k] * l[j * d + k] * l[k * d + k]).sum();
            let rest = l[i * d + j] - sum;
            l[i * d + j] = if i == j { rest } else { rest / l[j * d + j] };
        }
        require(l[i * d + i] > 0.0, "H + rho I must be definite")?;
    }
    let mut theta = vec![0.0; d * m];
    for c in 0..m {
        for i in 0..d {
            let curved: Real = (0..d).map(|k| h[i * d + k] * w.data[k * m + c]).sum();
            let known: Real = (0..i).map(|k| l[i * d + k] * theta[k * m + c]).sum();
            theta[i * m + c] = curved + rho * (g[i * m + c] - lam[i * m + c]) - known;
        }
        for i in (0..d).rev() {
            let known: Real = (i + 1..d).map(|k| l[k * d + i] * theta[k * m + c]).sum();
            theta[i * m + c] = theta[i * m + c] / l[i * d + i] - known;
        }
    }
    Ok(theta)
}

fn proximal(inputs: &Named) -> Answer {
    let (w, g, lam) = (&inputs["W_bar"], &inputs["G"].data, &inputs["lam"].data);
    let theta = solve(&inputs["H"].data, w, g, lam, inputs["rho"].data[0])?;
    Ok(named([("Theta", Array::new(&w.shape, theta))]))
}

/// Q = nearest(V/α): the codes, and VᵀQ and QᵀQ.
fn nearest(v: &[Real], values: &[Real], alpha: Real, ties: &str) -> (Vec<usize>, Real, Real) {
    let zero = values.iter().position(|&x| x == 0.0).unwrap_or(0);
    let code = |x: Real| {
        let mut code = 0;
        for pair in values.windows(2) {
            let middle = (pair[0] + pair[1]) / 2.0;
            let up = if ties == "larger" { middle >= 0.0 } else { middle <= 0.0 };
            let tied = x == alpha * middle;
            if tied && ties == "zero" && values.len() <= 9 && pair[0] * pair[1] != 0.0 {
                return zero;
            }
            code += usize::from(x > alpha * middle || (tied && up));
        }
        code
    };
    let codes: Vec<usize> = v.iter().map(|&x| code(x)).collect();
    let top = v.iter().zip(&codes).map(|(x, &q)| x * values[q]).sum();
    let bottom = codes.iter().map(|&q| values[q] * values[q]).sum();
    (codes, top, bottom)
}

struct Point {
    codes: Vec<usize>,
    alpha: Real,
    passes: i64,
}

/// The alternation Q = nearest(V/α), α = VᵀQ/QᵀQ from `alpha0`, or from 0 the mean of |V|.
fn alternate(v: &[Real], values: &[Real], alpha0: Real, most: i64, ties: &str) -> Point {
    let least = values.iter().filter(|&&x| x != 0.0).fold(Real::INFINITY, |a, x| a.min(x.abs()));
    let mean = v.iter().map(|x| x.abs()).sum::<Real>() / v.len() as Real / least;
    let mut alpha = if alpha0 > 0.0 { alpha0 } else { mean };
    let (mut passes, mut restarted, mut direction) = (0, false, 0.0);
    let (mut codes, mut top, mut bottom) = nearest(v, values, alpha, ties);
    while alpha > 0.0 && most != 0 {
        let mut next = if top > 0.0 { top / bottom } else { 0.0 };
        let again = next == 0.0 && !restarted && alpha != mean; // an empty Q starts over
        if again {
            (next, restarted) = (mean, true);
        }
        let step = next - alpha;
        alpha = next;
        passes += i64::from(step != 0.0);
        let reached = most > 0 && passes >= most;
        if alpha == 0.0 || step == 0.0 || step * direction < 0.0 || reached {
            break; // α is monotone: a step back is rounding
        }
        direction = if again { 0.0 } else { step };
        (codes, top, bottom) = nearest(v, values, alpha, ties);
    }
    if alpha == 0.0 || codes.iter().all(|&q| values[q] == 0.0) {
        let zero = values.iter().position(|&x| x == 0.0).unwrap_or(0);
        (codes, alpha) = (vec![zero; v.len()], 0.0);
    }
    Point { codes, alpha, passes }
}

/// The global optimum: codes change where α = v/middle, so those between such values are all that there are.
fn optimum(v: &[Real], values: &[Real], ties: &str) -> Point {
    let middles: Vec<Real> = values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    let mut breaks: Vec<Real> = v
        .iter()
        .flat_map(|x| middles.iter().map(move |middle| x / middle))
        .filter(|a| *a > 0.0 && a.is_finite())
        .collect();
    breaks.push(0.0);
    breaks.sort_by(Real::total_cmp);
    let (mut alpha, mut gain) = (0.0, 0.0);
    for pair in breaks.windows(2) {
        let (_, top, bottom) = nearest(v, values, (pair[0] + pair[1]) / 2.0, ties);
        if top > 0.0 && top * top / bottom > gain {
            (alpha, gain) = (top / bottom, top * top / bottom);
        }
    }
    alternate(v, values, alpha, -1, ties)
}

fn scaled(point: &Point, values: &[Real]) -> Vec<Real> {
    point.codes.iter().map(|&q| point.alpha * values[q]).collect()
}

fn project(inputs: &Named) -> Answer {
    let (v, values, ties) = (&inputs["V"].data, &inputs["values"].data, &inputs["ties"].text);
    require(!v.is_empty(), "V must hold a value")?;
    let point = match inputs["kind"].text.as_str() {
        "exact" => optimum(v, values, ties),
        _ => alternate(v, values, inputs["alpha0"].data[0], inputs["passes"].int(0), ties),
    };
    let codes = point.codes.iter().map(|&q| q as Real).collect();
    Ok(named([
        ("Q", Array::new(&[v.len()], codes)),
        ("alpha", Array::new(&[], vec![point.alpha])),
        ("G", Array::new(&[v.len()], scaled(&point, values))),
        ("passes", Array::new(&[], vec![point.passes as Real])),
    ]))
}

fn dual(inputs: &Named) -> Answer {
    let (lam, theta, g) = (&inputs["lam"], &inputs["Theta"].data, &inputs["G"].data);
    let moved = lam.data.iter().zip(theta.iter().zip(g)).map(|(l, (t, g))| l + t - g).collect();
    Ok(named([("lam_new", Array::new(&lam.shape, moved))]))
}

/// K iterations; every projection but the first starts at the last α.
fn admm(inputs: &Named) -> Answer {
    let (h, w, values) = (&inputs["H"].data, &inputs["W_bar"], &inputs["values"].data);
    let (d, m, steps) = (w.shape[0], w.shape[1], inputs["K"].int(0) as usize);
    let objective = |g: &[Real]| {
        let difference: Vec<Real> = g.iter().zip(&w.data).map(|(g, w)| g - w).collect();
        let mut sum = 0.0;
        for (i, k, c) in (0..d).flat_map(|i| (0..d).flat_map(move |k| (0..m).map(move |c| (i, k, c)))) {
            sum += difference[i * m + c] * h[i * d + k] * difference[k * m + c];
        }
        sum / 2.0
    };
    let (mut g, mut lam, mut alpha) = (inputs["G0"].data.clone(), inputs["lam0"].data.clone(), 0.0);
    let (mut energies, mut points) = (vec![objective(&g)], vec![g.clone()]);
    let mut trace: BTreeMap<&str, Vec<Real>> = BTreeMap::new();
    for _ in 0..steps {
        let theta = solve(h, w, &g, &lam, inputs["rho"].data[0])?;
        let v: Vec<Real> = theta.iter().zip(&lam).map(|(t, l)| t + l).collect();
        let point = match inputs["projection"].text.as_str() {
            "exact" => optimum(&v, values, "smaller"),
            _ => alternate(&v, values, alpha, -1, "smaller"),
        };
        alpha = point.alpha;
        g = scaled(&point, values);
        lam = lam.iter().zip(theta.iter().zip(&g)).map(|(l, (t, g))| l + t - g).collect();
        energies.push(objective(&g));
        points.push(g.clone());
        let codes = point.codes.iter().map(|&q| q as Real).collect();
        for (name, array) in
            [("Theta", theta), ("V", v), ("Q", codes), ("G", g.clone()), ("lam", lam.clone())]
        {
            trace.entry(name).or_default().extend(array);
        }
        trace.entry("alpha").or_default().push(alpha);
    }
    let best = (0..=steps).fold(0, |best, k| if energies[k] < energies[best] { k } else { best });
    let chosen = if inputs["returned"].text == "best" { best } else { steps };
    let mut answers = named([
        ("E", Array::new(&[steps + 1], energies)),
        ("best", Array::new(&[], vec![best as Real])),
        ("result", Array::new(&[d, m], points[chosen].clone())),
    ]);
    for (name, data) in trace {
        let shape = if name == "alpha" { vec![steps] } else { vec![steps, d, m] };
        answers.insert(name.to_string(), Array::new(&shape, data));
    }
    Ok(answers)
}

fn answer(folder: &Path, step: Step) -> io::Result<Named> {
    let mut inputs = Named::new();
    for file in fs::read_dir(folder.join("in"))? {
        let path = file?.path();
        inputs.insert(path.file_stem().unwrap().to_string_lossy().to_string(), load(&path)?);
    }
    let finite = inputs.values().all(|array| array.data.iter().all(|x| x.is_finite()));
    let answer = require(finite, "inputs must be finite").and_then(|()| step(&inputs));
    Ok(answer.unwrap_or_else(|text| named([("error", Array { text, ..Array::default() })])))
}

fn main() -> io::Result<()> {
    let words: Vec<PathBuf> = env::args().skip(1).map(PathBuf::from).collect();
    let steps: [(&str, Step); 7] = [
        ("patches", patches),
        ("hessian", hessian),
        ("pack", pack),
        ("proximal", proximal),
        ("project", project),
        ("dual", dual),
        ("admm", admm),
    ];
    for (op, step) in steps {
        let Ok(cases) = fs::read_dir(words[0].join(op)) else { continue };
        for case in cases {
            let folder = case?.path();
            for (name, array) in answer(&folder, step)? {
                save(&words[1].join(op).join(folder.file_name().unwrap()).join("out"), &name, &array)?;
            }
        }
    }
    let names = steps.map(|(op, _)| format!("\"{op}\"")).join(", ");
    let dtype = format!("float{}", 8 * size_of::<Real>());
    let info = format!(
        r#"{{"name": "complete.rs", "version": "1", "dtype": "{dtype}", "capabilities": [{names}]}}"#
    );
    fs::write(words[1].join("info.json"), info)
}
