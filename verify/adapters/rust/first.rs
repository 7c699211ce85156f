//! The conformance kit from Rust, without any crate: two steps of the method, to copy and to go on from.
//!
//!     rustc --edition 2021 -O first.rs -o first
//!     refldnq kit run -- ./first {in} {out}
//!
//! An input of a case is IN/<step>/<case>/in/<input>.npy, an answer OUT/<step>/<case>/out/<answer>.npy.
use std::collections::HashMap;
use std::path::Path;
use std::{env, fs, io};

/// In C order: the last index runs fastest.
#[derive(Clone)]
struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}
type Inputs = HashMap<String, Array>;
type Step = fn(&Inputs) -> Result<Array, &'static str>;

// ---- your part: one function a step; `Err` refuses the inputs --------------------------------------------

/// Θ of (H + ρI) Θ = H W̄ + ρ(G - λ), (15).
fn proximal(inputs: &Inputs) -> Result<Array, &'static str> {
    let (w, g, lam, rho) = (&inputs["W_bar"], &inputs["G"].data, &inputs["lam"].data, inputs["rho"].data[0]);
    if rho <= 0.0 {
        return Err("rho must be positive");
    }
    let (d, m) = (w.shape[0], w.shape[1]);
    let mut a = inputs["H"].data.clone();
    let right = |i: usize| (0..d).map(|k| a[i / m * d + k] * w.data[k * m + i % m]).sum::<f64>();
    let mut theta: Vec<f64> = (0..d * m).map(|i| right(i) + rho * (g[i] - lam[i])).collect();
    (0..d).for_each(|i| a[i * (d + 1)] += rho);
    for k in 0..d {
        for i in k + 1..d {
            // elimination: a definite matrix needs no pivots
            let factor = a[i * d + k] / a[k * d + k];
            (k..d).for_each(|j| a[i * d + j] -= factor * a[k * d + j]);
            (0..m).for_each(|c| theta[i * m + c] -= factor * theta[k * m + c]);
        }
    }
    for i in (0..d).rev() {
        for c in 0..m {
            let known: f64 = (i + 1..d).map(|k| a[i * d + k] * theta[k * m + c]).sum();
            theta[i * m + c] = (theta[i * m + c] - known) / a[i * d + i];
        }
    }
    Ok(Array { data: theta, ..w.clone() })
}

/// λ + Θ - G, (18).
fn dual(inputs: &Inputs) -> Result<Array, &'static str> {
    let (lam, theta, g) = (&inputs["lam"], &inputs["Theta"].data, &inputs["G"].data);
    Ok(Array { data: (0..g.len()).map(|i| lam.data[i] + theta[i] - g[i]).collect(), ..lam.clone() })
}

// ---- files: as they are in every program -----------------------------------------------------------------

/// Ten bytes, a line with type and shape, the numbers: here doubles all.
fn load(file: &Path) -> io::Result<Array> {
    let bytes = fs::read(file)?;
    let start = 10 + bytes[8] as usize + 256 * bytes[9] as usize;
    let line = String::from_utf8_lossy(&bytes[10..start]).to_string();
    let shape = line[line.find('(').unwrap() + 1..line.find(')').unwrap()].split(',');
    let numbers = bytes[start..].chunks_exact(8).map(|eight| f64::from_le_bytes(eight.try_into().unwrap()));
    Ok(Array { shape: shape.filter_map(|n| n.trim().parse().ok()).collect(), data: numbers.collect() })
}

fn save(file: &Path, kind: &str, shape: &[usize], body: &[u8]) -> io::Result<()> {
    let sizes: String = shape.iter().map(|n| format!("{n},")).collect();
    let line = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
    fs::create_dir_all(file.parent().unwrap())?;
    // 118 bytes and the ten before them are 128.
    fs::write(file, [b"\x93NUMPY\x01\0\x76\0", format!("{line:117}\n").as_bytes(), body].concat())
}

fn answer(questions: &Path, answers: &Path, name: &str, step: Step) -> io::Result<()> {
    let Ok(asked) = fs::read_dir(questions) else { return Ok(()) };
    for one in asked {
        let one = one?.path();
        let mut inputs = Inputs::new();
        for file in fs::read_dir(one.join("in"))? {
            let file = file?.path();
            inputs.insert(file.file_stem().unwrap().to_string_lossy().to_string(), load(&file)?);
        }
        let finite = inputs.values().all(|array| array.data.iter().all(|x| x.is_finite()));
        let out = answers.join(one.file_name().unwrap()).join("out");
        match if finite { step(&inputs) } else { Err("inputs must be finite") } {
            Ok(Array { shape, data }) => {
                let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
                save(&out.join(format!("{name}.npy")), "<f8", &shape, &bytes)?
            }
            Err(why) => save(&out.join("error.npy"), &format!("|S{}", why.len()), &[], why.as_bytes())?,
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().collect();
    let (questions, answers) = (Path::new(&words[1]), Path::new(&words[2]));
    answer(&questions.join("proximal"), &answers.join("proximal"), "Theta", proximal)?;
    answer(&questions.join("dual"), &answers.join("dual"), "lam_new", dual)?;
    fs::write(
        answers.join("info.json"),
        r#"{"name": "first.rs", "version": "1", "capabilities": ["proximal", "dual"]}"#,
    )
}
