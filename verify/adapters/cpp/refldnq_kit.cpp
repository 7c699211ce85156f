// The conformance kit from C++17, without any library: an example to copy.
//
//     g++ -std=c++17 -O2 refldnq_kit.cpp -o refldnq_kit
//     refldnq kit run -- ./refldnq_kit {in} {out}
//
// An input of a case is IN/<op>/<name>/in/<input>.npy, an answer OUT/<op>/<name>/out/<answer>.npy, and who answers
// stands in OUT/info.json. With -DREAL=float everything is computed in single precision; with -DMISTAKE the rows
// of H come in the order (kh, kw, c), to show what a report of a fault looks like.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
#ifndef REAL
#define REAL double
#endif
namespace fs = std::filesystem;
using Vector = std::vector<REAL>;

struct Array {  // of any type, in C order; codes and counts are converted when they are written
    std::vector<long> shape;
    Vector data;
    std::string text;
    explicit Array(std::vector<long> s = {}) : shape(s) {
        size_t size = 1;
        for (long n : s) size *= n;
        data.resize(size);
    }
    long at(size_t i) const { return long(data.at(i)); }
};
using Named = std::map<std::string, Array>;

void require(bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument(what);
}

// ---- files ----------------------------------------------------------------------------------------------------

template <class T> void convert(const std::string& bytes, size_t at, Vector& data) {
    for (size_t i = 0; i < data.size(); ++i) data[i] = REAL(reinterpret_cast<const T*>(bytes.data() + at)[i]);
}

Array load(const fs::path& file) {  // magic, version, length of the header, header, data
    std::ifstream in(file, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    require(bytes.size() > 10 && bytes[6] == 1, file.string() + " must be an .npy file of version 1");
    const size_t start = 10 + (unsigned char)bytes[8] + 256 * (unsigned char)bytes[9];
    const std::string header = bytes.substr(10, start - 10);
    const std::string type = header.substr(header.find("'descr': '") + 11, 2);
    std::vector<long> shape;
    for (size_t i = header.find("'shape': (") + 10; header[i] != ')';) {
        size_t digits = 0;
        shape.push_back(std::stol(header.substr(i), &digits));
        i = header.find_first_not_of(", ", i + digits);
    }
    Array array(shape);
    if (type == "f8") convert<double>(bytes, start, array.data);
    else if (type == "i8") convert<int64_t>(bytes, start, array.data);
    else if (type == "i1" || type == "b1") convert<int8_t>(bytes, start, array.data);
    else if (type[0] == 'S') array.text = bytes.substr(start, bytes.find('\0', start) - start);
    else throw std::runtime_error(file.string() + " has the unknown type " + type);
    return array;
}

template <class T> std::string raw(const Vector& data) {
    const std::vector<T> converted(data.begin(), data.end());
    return {reinterpret_cast<const char*>(converted.data()), converted.size() * sizeof(T)};
}

void save(const fs::path& folder, const std::string& name, const Array& array) {
    std::string type = sizeof(REAL) == 8 ? "<f8" : "<f4", body, shape;
    if (name == "Q") type = "|i1", body = raw<int8_t>(array.data);
    else if (name == "passes") type = "<i8", body = raw<int64_t>(array.data);
    else if (name == "error") type = "|S" + std::to_string(array.text.size()), body = array.text;
    else body = raw<REAL>(array.data);
    for (long n : array.shape) shape += std::to_string(n) + ",";
    std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
    fs::create_directories(folder);
    std::ofstream out(folder / (name + ".npy"), std::ios::binary);
    const size_t length = header.size() + 1;
    out << "\x93NUMPY\x01" << '\0' << char(length % 256) << char(length / 256) << header << '\n' << body;
}

// ---- the steps ------------------------------------------------------------------------------------------------

Named patches(const Named& in) {  // (n, P, g, d): rows (c, kh, kw) of every window, the constant 1 last
    const Array &X = in.at("X"), &s = in.at("stride"), &pad = in.at("padding"), &dil = in.at("dilation");
    const Array& weight = in.at("weight_shape");
    const long n = X.shape[0], g = in.at("groups").at(0), bias = in.at("bias").at(0);
    const long per = weight.at(2), kh = weight.at(3), kw = weight.at(4);
    const long h = X.shape.size() == 4 ? X.shape[2] : 1, w = X.shape.size() == 4 ? X.shape[3] : 1;
    require(X.shape[1] == g * per, "X must have as many channels as the weight");
    const long tall = h + pad.at(0) + pad.at(1) - dil.at(0) * (kh - 1) - 1;
    const long wide = w + pad.at(2) + pad.at(3) - dil.at(1) * (kw - 1) - 1;
    require(tall >= 0 && wide >= 0, "the window must fit into the padded image");
    const long ho = tall / s.at(0) + 1, wo = wide / s.at(1) + 1, d = per * kh * kw;
    Array rows({n, ho * wo, g, d + bias});
    REAL* to = rows.data.data();
    for (long image = 0; image < n; ++image)
        for (long p = 0; p < ho * wo; ++p)
            for (long group = 0; group < g; ++group) {
                for (long r = 0; r < d; ++r) {
#ifdef MISTAKE
                    const long c = r % per, i = r / per / kw, j = r / per % kw;
#else
                    const long c = r / (kh * kw), i = r / kw % kh, j = r % kw;
#endif
                    const long y = p / wo * s.at(0) + i * dil.at(0) - pad.at(0);
                    const long x = p % wo * s.at(1) + j * dil.at(1) - pad.at(2);
                    const bool inside = 0 <= y && y < h && 0 <= x && x < w;
                    *to++ = inside ? X.data[((image * g * per + group * per + c) * h + y) * w + x] : 0;
                }
                if (bias) *to++ = 1;
            }
    return {{"patches", rows}};
}

Named hessian(const Named& in) {  // (2/n) times the sum of the outer products of all patches
    const Array rows = patches(in).at("patches");
    const long n = rows.shape[0], p = rows.shape[1], g = rows.shape[2], d = rows.shape[3];
    require(n > 0, "X must have images");
    Array H({g, d, d});
    for (long row = 0; row < n * p; ++row)
        for (long group = 0; group < g; ++group) {
            const REAL* x = &rows.data[(row * g + group) * d];
            for (long i = 0; i < d; ++i)
                for (long j = 0; j < d; ++j) H.data[(group * d + i) * d + j] += x[i] * x[j];
        }
    for (REAL& value : H.data) value *= REAL(2) / n;
    return {{"H", H}};
}

Named pack(const Named& in) {  // (g, d, m): the weights of an output channel are a column, its bias is the last entry
    const Array &weight = in.at("weight"), &bias = in.at("bias");
    const long g = in.at("groups").at(0), units = weight.shape[0], m = units / g;
    const long rows = weight.data.size() / units, last = bias.data.empty() ? 0 : 1;
    require(units % g == 0, "the output channels must fill the groups");
    require(!last || long(bias.data.size()) == units, "bias must have one entry for each output channel");
    Array W({g, rows + last, m});
    for (long unit = 0; unit < units; ++unit) {
        REAL* column = &W.data[unit / m * (rows + last) * m + unit % m];
        for (long r = 0; r < rows; ++r) column[r * m] = weight.data[unit * rows + r];
        if (last) column[rows * m] = bias.data[unit];
    }
    return {{"W", W}};
}

Named proximal(const Named& in) {  // (H + rho I) Theta = H W + rho (G - lam), by Cholesky
    const Array &H = in.at("H"), &W = in.at("W_bar"), &G = in.at("G"), &lam = in.at("lam");
    const REAL rho = in.at("rho").data[0];
    require(rho > 0, "rho must be positive");
    const long d = W.shape[0], m = W.shape[1];
    Vector L(H.data);
    Array theta(W.shape);
    for (long i = 0; i < d; ++i)
        for (long c = 0; c < m; ++c) {
            REAL sum = rho * (G.data[i * m + c] - lam.data[i * m + c]);
            for (long k = 0; k < d; ++k) sum += H.data[i * d + k] * W.data[k * m + c];
            theta.data[i * m + c] = sum;
        }
    for (long i = 0; i < d; ++i)
        for (long j = 0; j <= i; ++j) {
            REAL sum = L[i * d + j] + (i == j ? rho : 0);
            for (long k = 0; k < j; ++k) sum -= L[i * d + k] * L[j * d + k];
            require(i != j || sum > 0, "H + rho I must be definite");
            L[i * d + j] = i == j ? std::sqrt(sum) : sum / L[j * d + j];
        }
    for (long c = 0; c < m; ++c) {
        for (long i = 0; i < d; ++i) {
            for (long k = 0; k < i; ++k) theta.data[i * m + c] -= L[i * d + k] * theta.data[k * m + c];
            theta.data[i * m + c] /= L[i * d + i];
        }
        for (long i = d - 1; i >= 0; --i) {
            for (long k = i + 1; k < d; ++k) theta.data[i * m + c] -= L[k * d + i] * theta.data[k * m + c];
            theta.data[i * m + c] /= L[i * d + i];
        }
    }
    return {{"Theta", theta}};
}

struct Fit {  // codes, and the scale that suits them best
    Vector codes;
    REAL alpha, gain;
};

Fit fit(const Vector& V, const Vector& values, REAL alpha, const std::string& ties) {  // Q = nearest(V / alpha)
    const long zero = std::find(values.begin(), values.end(), REAL(0)) - values.begin();
    Fit found{Vector(V.size()), 0, 0};
    REAL top = 0, bottom = 0;
    for (size_t i = 0; i < V.size(); ++i) {
        long code = 0;
        for (long k = 0; k + 1 < long(values.size()); ++k) {
            const REAL middle = (values[k] + values[k + 1]) / 2, limit = alpha * middle;
            if (V[i] > limit || (V[i] == limit && (ties == "larger" ? middle >= 0 : middle <= 0))) code = k + 1;
            if (V[i] == limit && ties == "zero" && values[k] != 0 && values[k + 1] != 0 && values.size() <= 9) {
                code = zero;
                break;
            }
        }
        found.codes[i] = REAL(code);
        top += V[i] * values[code], bottom += values[code] * values[code];
    }
    found.alpha = top > 0 ? top / bottom : 0;
    found.gain = top > 0 ? top * top / bottom : 0;
    return found;
}

Named project(const Named& in) {  // the alternation Q = nearest(V / alpha), alpha = VQ / QQ, or its optimum
    const Vector &V = in.at("V").data, &values = in.at("values").data;
    const std::string ties = in.at("ties").text;
    const long most = in.at("passes").at(0), N = V.size();
    require(N > 0, "V must hold a value");
    REAL least = INFINITY, mean = 0, alpha = in.at("alpha0").data[0];
    for (REAL value : values) least = value != 0 ? std::min(least, std::abs(value)) : least;
    for (REAL v : V) mean += std::abs(v) / N / least;
    alpha = alpha > 0 ? alpha : mean;
    if (in.at("kind").text == "exact") {  // codes change where alpha = v / middle: try the codes between
        Vector breaks;
        for (REAL v : V)
            for (size_t k = 0; k + 1 < values.size(); ++k)
                if (v * (values[k] + values[k + 1]) > 0) breaks.push_back(v / ((values[k] + values[k + 1]) / 2));
        std::sort(breaks.begin(), breaks.end());
        Fit best{{}, 0, 0};
        for (size_t k = 0; k < breaks.size(); ++k) {
            const Fit one = fit(V, values, (breaks[k] + (k ? breaks[k - 1] : 0)) / 2, ties);
            if (one.gain > best.gain) best = one;
        }
        alpha = best.alpha;
    }
    Fit found = fit(V, values, alpha, ties);
    long passes = 0;
    REAL direction = 0;
    for (bool restarted = false; alpha > 0 && most != 0;) {
        REAL next = found.alpha;
        const bool again = next == 0 && !restarted && alpha != mean;  // an empty Q starts over
        if (again) next = mean, restarted = true;
        const REAL step = next - alpha;
        if (step != 0) ++passes;
        alpha = next;  // alpha is monotone; a step back is rounding
        if (alpha == 0 || step == 0 || step * direction < 0 || (most > 0 && passes >= most)) break;
        direction = again ? 0 : step;
        found = fit(V, values, alpha, ties);
    }
    Array Q({N}), scale, G({N}), count;
    const long zero = std::find(values.begin(), values.end(), REAL(0)) - values.begin();
    bool empty = true;
    for (REAL code : found.codes) empty = empty && values[long(code)] == 0;
    scale.data = {empty ? 0 : alpha};
    count.data = {REAL(passes)};
    for (long i = 0; i < N; ++i) {
        Q.data[i] = scale.data[0] == 0 ? REAL(zero) : found.codes[i];
        G.data[i] = scale.data[0] * values[long(Q.data[i])];
    }
    return {{"Q", Q}, {"alpha", scale}, {"G", G}, {"passes", count}};
}

Named dual(const Named& in) {  // lam + Theta - G
    Array lam = in.at("lam");
    for (size_t i = 0; i < lam.data.size(); ++i) lam.data[i] += in.at("Theta").data[i] - in.at("G").data[i];
    return {{"lam_new", lam}};
}

int main(int count, char** words) {
    if (count != 3) return 2;
    const std::map<std::string, Named (*)(const Named&)> steps = {
        {"patches", patches}, {"hessian", hessian}, {"pack", pack},
        {"proximal", proximal}, {"project", project}, {"dual", dual}};
    for (const auto& [op, step] : steps) {
        if (!fs::exists(fs::path(words[1]) / op)) continue;  // not asked
        for (const auto& folder : fs::directory_iterator(fs::path(words[1]) / op)) {
            Named in, out;
            for (const auto& file : fs::directory_iterator(folder.path() / "in"))
                in.emplace(file.path().stem().string(), load(file));
            try {
                for (const auto& [name, array] : in)
                    for (REAL value : array.data) require(std::isfinite(value), name + " must be finite");
                out = step(in);
            } catch (const std::invalid_argument& error) {  // the inputs are refused
                out.emplace("error", Array()).first->second.text = error.what();
            }
            for (const auto& [name, array] : out)
                save(fs::path(words[2]) / op / folder.path().filename() / "out", name, array);
        }
    }
    std::string names;
    for (const auto& [op, step] : steps) names += (names.empty() ? "\"" : ", \"") + op + "\"";
    std::ofstream(fs::path(words[2]) / "info.json")
        << "{\"name\": \"refldnq_kit.cpp\", \"version\": \"1\", \"capabilities\": [" << names << "], "
        << "\"dtype\": \"" << (sizeof(REAL) == 8 ? "float64" : "float32") << "\"}\n";
}
