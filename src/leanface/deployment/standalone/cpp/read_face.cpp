// Read the largest face of a JPEG, and print its 257 coefficients, one a line.
//
//     read_face photo.jpg FOLDER
//
// FOLDER is what `leanface export bundle` wrote. The photo must be upright: its EXIF orientation is ignored, and a face
// that is tilted by more than 10 degrees is refused. It finds faces that fill a sixth of the photo's longer side.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>  // after <cstdio>, which it needs
#include <openvino/openvino.hpp>

namespace {

constexpr int kSide = 128, kMeshSide = 192, kMeshCount = 468, kLooksMax = 5;
constexpr double kScoreMin = 0.5, kOverlap = 0.3, kSureScore = 0.7, kFaceLogit = 5, kSureLogit = 12;
constexpr double kMargin = 1.5, kSettledRad = M_PI / 60, kRollMaxRad = M_PI / 18, kTemplatePx = 224;

struct Point {
  double x, y;
};
struct Image {
  int width, height;
  std::vector<uint8_t> rgb;
};
struct Square {
  Point center;
  double side, angle;
};  // edge coordinates; clockwise to the photo's x axis
struct Found {
  double score;
  std::array<double, 4> box;
  Point left_eye, right_eye;
};
struct Mesh {
  std::vector<Point> points;
  double logit;
};

Image read_jpeg(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) throw std::runtime_error("cannot open " + path);
  jpeg_decompress_struct jpeg;
  jpeg_error_mgr errors;
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr info) {
    char text[JMSG_LENGTH_MAX];
    info->err->format_message(info, text);
    throw std::runtime_error(std::string("not a JPEG that can be read: ") + text);
  };
  jpeg_create_decompress(&jpeg);
  jpeg_stdio_src(&jpeg, file);
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  Image image{static_cast<int>(jpeg.output_width), static_cast<int>(jpeg.output_height), {}};
  image.rgb.resize(3ull * image.width * image.height);
  while (jpeg.output_scanline < jpeg.output_height) {
    uint8_t* row = &image.rgb[3ull * image.width * jpeg.output_scanline];
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  std::fclose(file);
  return image;
}

// Average squares of `factor` pixels.
Image reduced(const Image& image, int factor) {
  if (factor <= 1) return image;
  Image result{(image.width + factor - 1) / factor, (image.height + factor - 1) / factor, {}};
  result.rgb.resize(3ull * result.width * result.height);
  for (int row = 0; row < result.height; row++) {
    for (int column = 0; column < result.width; column++) {
      const int bottom = std::min((row + 1) * factor, image.height),
                right = std::min((column + 1) * factor, image.width);
      const int count = (bottom - row * factor) * (right - column * factor);
      for (int k = 0; k < 3; k++) {
        int sum = count / 2;
        for (int y = row * factor; y < bottom; y++) {
          for (int x = column * factor; x < right; x++) sum += image.rgb[3 * (y * image.width + x) + k];
        }
        result.rgb[3 * (row * result.width + column) + k] = sum / count;
      }
    }
  }
  return result;
}

uint8_t rounded(double value) { return static_cast<uint8_t>(std::clamp(std::lround(value), 0l, 255l)); }

double bicubic(double t) { return t < 1 ? (1.5 * t - 2.5) * t * t + 1 : ((-0.5 * t + 2.5) * t - 4) * t + 2; }
double bilinear(double t) { return 1 - t; }

// Which pixels of `length` each of `size` takes, with weights: result = scale * source + shift, wider where it shrinks.
std::vector<std::vector<std::pair<int, double>>> taps(int length, int size, double scale, double shift, bool cubic) {
  std::vector<std::vector<std::pair<int, double>>> result(size);
  const double stretch = std::max(1.0, 1 / scale), support = (cubic ? 2 : 1) * stretch;
  for (int index = 0; index < size; index++) {
    const double center = (index - shift) / scale;
    double sum = 0;
    for (int place = std::ceil(center - support); place < center + support; place++) {
      const double t = std::abs(place - center) / stretch, weight = cubic ? bicubic(t) : bilinear(t);
      result[index].push_back({std::clamp(place, 0, length - 1), weight});  // edge pixels are repeated
      sum += weight;
    }
    for (auto& tap : result[index]) tap.second /= sum;
  }
  return result;
}

Image resampled(const Image& image, int width, int height, Point scale, Point shift, bool cubic) {
  const auto columns = taps(image.width, width, scale.x, shift.x, cubic),
             rows = taps(image.height, height, scale.y, shift.y, cubic);
  Image narrow{width, image.height, std::vector<uint8_t>(3ull * width * image.height)},
      result{width, height, std::vector<uint8_t>(3ull * width * height)};
  const auto blend = [](const auto& weights, const auto& value) {
    double sum = 0;
    for (const auto& [place, weight] : weights) sum += weight * value(place);
    return rounded(sum);  // in 8 bits between the two passes, too, as in the crops that the network learned from
  };
  for (int y = 0; y < image.height; y++) {
    for (int at = 0; at < 3 * width; at++) {
      narrow.rgb[3 * width * y + at] =
          blend(columns[at / 3], [&](int x) { return image.rgb[3 * (y * image.width + x) + at % 3]; });
    }
  }
  for (int row = 0; row < height; row++) {
    for (int at = 0; at < 3 * width; at++) {
      result.rgb[3 * width * row + at] = blend(rows[row], [&](int y) { return narrow.rgb[3 * width * y + at]; });
    }
  }
  return result;
}

// Cut a turned square out as an upright one of `side` pixels; black beyond the photo.
Image cut_turned(const Image& photo, const Square& square, int side) {
  const int factor = std::max(1, static_cast<int>(square.side / side));
  const Image source = reduced(photo, factor);
  const double step = square.side / side / factor, cos = step * std::cos(square.angle),
               sin = step * std::sin(square.angle);
  Image result{side, side, std::vector<uint8_t>(3 * side * side)};
  for (int row = 0; row < side; row++) {
    for (int column = 0; column < side; column++) {
      const double across = column + 0.5 - side / 2.0, down = row + 0.5 - side / 2.0;
      double x = square.center.x / factor + cos * across - sin * down,
             y = square.center.y / factor + sin * across + cos * down;
      if (x < 0 || y < 0 || x >= source.width || y >= source.height) continue;
      x = std::clamp(x - 0.5, 0.0, source.width - 1.0), y = std::clamp(y - 0.5, 0.0, source.height - 1.0);
      const int left = x, top = y, right = std::min(left + 1, source.width - 1),
                bottom = std::min(top + 1, source.height - 1);
      const auto color = [&](int i, int j, int k) { return source.rgb[3 * (i * source.width + j) + k]; };
      for (int k = 0; k < 3; k++) {
        const double upper = (1 - (x - left)) * color(top, left, k) + (x - left) * color(top, right, k);
        const double lower = (1 - (x - left)) * color(bottom, left, k) + (x - left) * color(bottom, right, k);
        result.rgb[3 * (row * side + column) + k] = (1 - (y - top)) * upper + (y - top) * lower;
      }
    }
  }
  return result;
}

class Network {
 public:
  Network(ov::Core& core, const std::string& path)
      : request_(core.compile_model(path, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                    ov::hint::inference_precision(ov::element::f32))
                     .create_infer_request()) {}

  // Run it on planes (3, side, side).
  void run(std::vector<float>& planes, size_t side) {
    request_.set_input_tensor(ov::Tensor(ov::element::f32, {1, 3, side, side}, planes.data()));
    request_.infer();
  }
  const float* output(size_t index) { return request_.get_output_tensor(index).data<float>(); }

 private:
  ov::InferRequest request_;
};

std::vector<float> planes_of(const Image& image) {
  const size_t count = image.rgb.size() / 3;
  std::vector<float> planes(3 * count);
  for (size_t at = 0; at < 3 * count; at++) planes[at % 3 * count + at / 3] = image.rgb[at] / 255.0f;
  return planes;
}

double angle_of(Point from, Point to) { return std::atan2(to.y - from.y, to.x - from.x); }

double overlap(const std::array<double, 4>& a, const std::array<double, 4>& b) {
  const double both = std::max(0.0, std::min(a[2], b[2]) - std::max(a[0], b[0])) *
                      std::max(0.0, std::min(a[3], b[3]) - std::max(a[1], b[1]));
  return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

// BlazeFace: find faces, the largest first; boxes that show the same face are averaged, weighted by score.
std::vector<std::pair<double, Square>> find_faces(const Image& photo, Network& network) {
  const Image source = reduced(photo, std::max(photo.width, photo.height) / kSide / 2);
  const double scale = double(kSide) / std::max(source.width, source.height);
  const int width = std::max(1l, std::lround(source.width * scale)),
            height = std::max(1l, std::lround(source.height * scale));
  const int left = (kSide - width) / 2, top = (kSide - height) / 2;
  const Point fitted{double(width) / source.width, double(height) / source.height};
  const Image small = resampled(source, width, height, fitted, {fitted.x / 2 - 0.5, fitted.y / 2 - 0.5}, false);
  std::vector<float> input(3 * kSide * kSide, -1.0f);
  for (int row = 0; row < height; row++) {
    for (int at = 0; at < 3 * width; at++)
      input[(at % 3 * kSide + top + row) * kSide + left + at / 3] = small.rgb[3 * width * row + at] / 127.5f - 1;
  }
  network.run(input, kSide);
  const float *answers = network.output(0), *logits = network.output(1);
  std::vector<Found> found;
  int anchor = 0;
  for (const auto& [stride, count] : {std::pair{8, 2}, {16, 6}}) {
    for (int place = 0; place < kSide / stride * (kSide / stride); place++) {
      for (int which = 0; which < count; which++, anchor++) {
        const double score = 1 / (1 + std::exp(-double(logits[anchor])));
        if (score <= kScoreMin) continue;
        const double x = (place % (kSide / stride) + 0.5) * stride, y = (place / (kSide / stride) + 0.5) * stride;
        const float* a = answers + 16 * anchor;
        found.push_back({score,
                         {x + a[0] - a[2] / 2, y + a[1] - a[3] / 2, x + a[0] + a[2] / 2, y + a[1] + a[3] / 2},
                         {x + a[4], y + a[5]},
                         {x + a[6], y + a[7]}});
      }
    }
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.score > b.score; });
  std::vector<std::pair<double, Square>> faces;
  while (!found.empty()) {
    const Found first = found[0];
    const auto other = std::stable_partition(
        found.begin() + 1, found.end(), [&](const Found& face) { return overlap(first.box, face.box) > kOverlap; });
    const double total =
        std::accumulate(found.begin(), other, 0.0, [](double sum, const Found& face) { return sum + face.score; });
    const auto blend = [&](auto pick, double offset, double gain) {
      return (std::accumulate(found.begin(), other, 0.0,
                              [&](double sum, const Found& face) { return sum + face.score / total * pick(face); }) -
              offset) *
             gain;
    };
    const double gain_x = double(photo.width) / width, gain_y = double(photo.height) / height;
    const auto edge = [&](int index) {
      return blend([index](const Found& face) { return face.box[index]; }, index % 2 ? top : left,
                   index % 2 ? gain_y : gain_x);
    };
    const double x0 = edge(0), y0 = edge(1), x1 = edge(2), y1 = edge(3);
    const Point eyes[2] = {{blend([](const Found& f) { return f.left_eye.x; }, left, gain_x),
                            blend([](const Found& f) { return f.left_eye.y; }, top, gain_y)},
                           {blend([](const Found& f) { return f.right_eye.x; }, left, gain_x),
                            blend([](const Found& f) { return f.right_eye.y; }, top, gain_y)}};
    faces.push_back(
        {first.score,
         {{(x0 + x1) / 2, (y0 + y1) / 2}, kMargin * std::max(x1 - x0, y1 - y0), angle_of(eyes[0], eyes[1])}});
    found.erase(found.begin(), other);
  }
  std::sort(faces.begin(), faces.end(), [](const auto& a, const auto& b) { return a.second.side > b.second.side; });
  return faces;
}

Mesh locate(const Image& photo, const Square& square, Network& network) {
  std::vector<float> input = planes_of(cut_turned(photo, square, kMeshSide));
  network.run(input, kMeshSide);
  const float* answers = network.output(0);
  const double scale = square.side / kMeshSide, cos = scale * std::cos(square.angle),
               sin = scale * std::sin(square.angle);
  Mesh mesh{std::vector<Point>(kMeshCount), network.output(1)[0]};
  for (int index = 0; index < kMeshCount; index++) {
    const double across = answers[3 * index] - kMeshSide / 2.0, down = answers[3 * index + 1] - kMeshSide / 2.0;
    mesh.points[index] = {square.center.x + cos * across - sin * down, square.center.y + sin * across + cos * down};
  }
  return mesh;
}

// The square around landmarks, turned with the head.
Square around(const std::vector<Point>& points) {
  const double angle = angle_of(points[33], points[263]), cos = std::cos(angle), sin = std::sin(angle);
  double left = INFINITY, right = -INFINITY, top = INFINITY, bottom = -INFINITY;
  for (const auto& [x, y] : points) {
    left = std::min(left, x * cos + y * sin), right = std::max(right, x * cos + y * sin);
    top = std::min(top, y * cos - x * sin), bottom = std::max(bottom, y * cos - x * sin);
  }
  const double u = (left + right) / 2, v = (top + bottom) / 2;
  return {{u * cos - v * sin, u * sin + v * cos}, kMargin * std::max(right - left, bottom - top), angle};
}

// Place landmarks, again from where they were found until they stay there.
Mesh look(const Image& photo, const Square& square, Network& network) {
  Mesh mesh = locate(photo, square, network);
  double logit = mesh.logit;
  Square region = around(mesh.points);
  for (int looks = 1; looks < kLooksMax; looks++) {
    mesh = locate(photo, region, network);
    if (looks == 1) logit = std::min(logit, mesh.logit);
    const Square next = around(mesh.points);
    if (logit < kFaceLogit || std::abs(std::remainder(next.angle - region.angle, 2 * M_PI)) < kSettledRad) break;
    region = next;
  }
  return {mesh.points, logit};
}

Point mean(const std::vector<Point>& points) {
  Point sum{0, 0};
  for (const auto& [x, y] : points) sum.x += x / points.size(), sum.y += y / points.size();
  return sum;
}

// Eyes, nose tip and mouth corners, pixel centers at integers.
std::vector<Point> five(const std::vector<Point>& mesh) {
  std::vector<Point> result;
  for (const auto& [first, second] : {std::pair{159, 145}, {386, 374}, {1, 1}, {61, 78}, {291, 308}}) {
    const Point middle = mean({mesh[first], mesh[second]});
    result.push_back({middle.x - 0.5, middle.y - 0.5});
  }
  return result;
}

// Scale and shift the photo so that the landmarks lie, by least squares, where the mean face has them.
Image aligned(const Image& photo, const std::vector<Point>& landmarks, std::vector<Point> target, int size) {
  for (Point& point : target)
    point = {(point.x + 0.5) * size / kTemplatePx - 0.5, (point.y + 0.5) * size / kTemplatePx - 0.5};
  const Point source = mean(landmarks), center = mean(target);
  double product = 0, across = 0, square = 0;
  for (size_t index = 0; index < target.size(); index++) {
    const double x = landmarks[index].x - source.x, y = landmarks[index].y - source.y, u = target[index].x - center.x,
                 v = target[index].y - center.y;
    product += x * u + y * v, across += u * y - v * x, square += x * x + y * y;
  }
  if (std::abs(std::atan2(across, product)) > kRollMaxRad)
    throw std::runtime_error("the face is tilted; turn the photo upright");
  const double scale = product / square;
  return resampled(photo, size, size, {scale, scale}, {center.x - scale * source.x, center.y - scale * source.y}, true);
}

// The network's flavor that is exact here: only processors with VNNI multiply unsigned by signed bytes exactly.
std::string model_for_this_machine(const std::string& folder) {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("flags", 0) == 0 && line.find("_vnni") != std::string::npos &&
        std::ifstream(folder + "/model_cpu.onnx"))
      return "/model_cpu.onnx";
  }
  return "/model.onnx";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: read_face photo.jpg FOLDER");
  const std::string folder = argv[2];
  std::ifstream alignment(folder + "/alignment.txt");
  int size = 0;
  std::vector<Point> target(5);
  alignment >> size;
  for (auto& [x, y] : target) alignment >> x >> y;
  if (!alignment) throw std::runtime_error(folder + "/alignment.txt is missing or damaged");
  ov::Core core;
  Network blazeface(core, folder + "/short_range.onnx"), mesh(core, folder + "/landmarks.onnx"),
      network(core, folder + model_for_this_machine(folder));
  const Image photo = read_jpeg(argv[1]);
  for (const auto& [score, square] : find_faces(photo, blazeface)) {
    const Mesh face = look(photo, square, mesh);
    if (face.logit < (score >= kSureScore ? kFaceLogit : kSureLogit)) continue;
    std::vector<float> input = planes_of(aligned(photo, five(face.points), target, size));
    network.run(input, size);
    for (int index = 0; index < 257; index++) std::printf("%.6g\n", network.output(0)[index]);
    return 0;
  }
  throw std::runtime_error("no face found; use an upright photo in which the face is large");
} catch (const std::exception& error) {
  std::cerr << "read_face: " << error.what() << "\n";
  return 1;
}
