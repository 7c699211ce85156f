// The conformance kit from C++17, without any library: two steps of the method, to copy and to go on from.
//
//     g++ -std=c++17 -O2 first.cpp -o first
//     refldnq kit run -- ./first {in} {out}
//
// An input of a case is IN/<step>/<case>/in/<input>.npy, an answer OUT/<step>/<case>/out/<answer>.npy.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>
namespace fs = std::filesystem;

struct Array {  // in C order: the last index runs fastest
    std::vector<long> shape;
    std::vector<double> data;
};
using Inputs = std::map<std::string, Array>;

// ---- your part: one function a step ---------------------------------------------------------------------

Array proximal(const Inputs& in) {  // Theta of (H + rho I) Theta = H W_bar + rho (G - lam), (15)
    const Array &W = in.at("W_bar"), &G = in.at("G"), &lam = in.at("lam");
    const double rho = in.at("rho").data[0];
    if (!(rho > 0)) throw std::invalid_argument("rho must be positive");
    const long d = W.shape[0], m = W.shape[1];
    std::vector<double> A = in.at("H").data;
    Array theta = W;
    for (long i = 0; i < d * m; ++i) {
        theta.data[i] = rho * (G.data[i] - lam.data[i]);
        for (long k = 0; k < d; ++k) theta.data[i] += A[i / m * d + k] * W.data[k * m + i % m];
    }
    for (long i = 0; i < d; ++i) A[i * (d + 1)] += rho;
    for (long k = 0; k < d; ++k)  // elimination: a definite matrix needs no pivots
        for (long i = k + 1; i < d; ++i) {
            const double factor = A[i * d + k] / A[k * d + k];
            for (long j = k; j < d; ++j) A[i * d + j] -= factor * A[k * d + j];
            for (long c = 0; c < m; ++c) theta.data[i * m + c] -= factor * theta.data[k * m + c];
        }
    for (long i = d - 1; i >= 0; --i)
        for (long c = 0; c < m; ++c) {
            for (long k = i + 1; k < d; ++k) theta.data[i * m + c] -= A[i * d + k] * theta.data[k * m + c];
            theta.data[i * m + c] /= A[i * d + i];
        }
    return theta;
}

Array dual(const Inputs& in) {  // lam_new = lam + Theta - G, (18)
    Array lam = in.at("lam");
    for (size_t i = 0; i < lam.data.size(); ++i) lam.data[i] += in.at("Theta").data[i] - in.at("G").data[i];
    return lam;
}

// ---- files: as they are in every program ----------------------------------------------------------------

Array load(const fs::path& file) {  // ten bytes, a line with type and shape, the numbers: here doubles all
    std::ifstream in(file, std::ios::binary);
    std::string line;
    std::getline(in.ignore(10), line);
    std::istringstream shape(line.substr(line.find('(') + 1));
    Array array;
    size_t size = 1;
    for (long n; shape >> n; shape.ignore()) array.shape.push_back(n), size *= n;
    array.data.resize(size);
    in.read((char*)array.data.data(), 8 * size);
    for (double x : array.data) if (!std::isfinite(x)) throw std::invalid_argument("inputs must be finite");
    return array;
}

void save(const fs::path& file, std::string type, const std::vector<long>& sizes, std::string bytes) {
    std::string line = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (";
    for (long n : sizes) line += std::to_string(n) + ",";
    line += "), }";
    line.resize(117, ' ');  // 128 bytes with the ten before it and the end of the line
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << "\x93NUMPY\x01" << '\0' << 'v' << '\0' << line << '\n' << bytes;
}

void answer(const fs::path& in, const fs::path& to, const std::string& name, Array (*step)(const Inputs&)) {
    if (!fs::exists(in)) return;  // the step is not asked for
    for (const auto& one : fs::directory_iterator(in)) {
        const fs::path out = to / one.path().filename() / "out";
        try {
            Inputs inputs;
            for (const auto& file : fs::directory_iterator(one.path() / "in"))
                inputs[file.path().stem().string()] = load(file);
            const auto [shape, data] = step(inputs);
            save(out / (name + ".npy"), "<f8", shape, {(const char*)data.data(), 8 * data.size()});
        } catch (const std::invalid_argument& refusal) {  // no answer: a text says why
            const std::string why = refusal.what();
            save(out / "error.npy", "|S" + std::to_string(why.size()), {}, why);
        }
    }
}

int main(int, char** words) {
    const fs::path in = words[1], out = words[2];
    answer(in / "proximal", out / "proximal", "Theta", proximal);
    answer(in / "dual", out / "dual", "lam_new", dual);
    std::ofstream(out / "info.json")
        << R"({"name": "first.cpp", "version": "1", "capabilities": ["proximal", "dual"]})";
}
