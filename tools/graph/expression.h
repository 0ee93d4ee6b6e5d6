#pragma once
/// Sizes over named dimensions, in a canonical form: two expressions are equal as numbers for every value of the
/// dimensions exactly when this form can show it, so that `2 * tokens + tokens` and `3 * tokens` are one.
///
/// A polynomial with 64-bit coefficients over atoms; an atom is a dimension or floor-division, modulo, minimum or
/// maximum of two expressions that could not be simplified.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace heed::tools {

/// A named size, lower <= value <= upper. Identified by its name.
struct Dimension {
  std::string name;
  int64_t lower = 1, upper = 1;
};

class Expression {
 public:
  Expression(int64_t constant = 0);  // NOLINT: implicit on purpose
  static Expression dimension(const std::string& name);

  std::optional<int64_t> constant() const;
  bool is_constant(int64_t value) const { return constant() == value; }

  friend Expression operator+(const Expression& a, const Expression& b);
  friend Expression operator-(const Expression& a, const Expression& b);
  friend Expression operator*(const Expression& a, const Expression& b);
  friend bool operator==(const Expression& a, const Expression& b);
  friend bool operator<(const Expression& a, const Expression& b);     // any total order, for containers
  static Expression divide(const Expression& a, const Expression& b);  // floor; exact where the polynomial divides
  static Expression modulo(const Expression& a, const Expression& b);
  /// A product that divides both: the largest number, and the dimensions that stand in every term.
  static Expression common_divisor(const Expression& a, const Expression& b);
  static Expression minimum(const Expression& a, const Expression& b);
  static Expression maximum(const Expression& a, const Expression& b);

  /// The value for given dimensions; throws Error where one is missing.
  int64_t evaluate(const std::map<std::string, int64_t>& dimensions) const;

  /// Bounds over the ranges of the dimensions: exact for a polynomial that is monotone in each, else safe.
  struct Range {
    int64_t lower, upper;
  };
  Range range(const std::map<std::string, Dimension>& dimensions) const;

  void collect(std::vector<std::string>& names) const;  // dimensions it depends on, each once
  Expression substitute(const std::string& name, const Expression& value) const;
  /// The same over the ranges of the dimensions, with every minimum, maximum, division and modulo that they decide
  /// gone.
  Expression simplify(const std::map<std::string, Dimension>& dimensions) const;

  /// "2 * tokens + 1", as it can be parsed again.
  std::string text() const;
  /// Reads sums, differences, products, //, %, min(a, b), max(a, b), names and integers; nothing where it is none of
  /// these.
  static std::optional<Expression> parse(const std::string& text);

  struct Atom;
  struct Term {
    std::vector<std::shared_ptr<const Atom>> factors;  // ascending
    int64_t coefficient;
  };
  const std::vector<Term>& terms() const { return terms_; }
  static Expression of(std::vector<std::shared_ptr<const Atom>> factors,
                       int64_t coefficient);  // one term; factors ascending

 private:
  Expression rebuild(const std::function<Expression(const Atom&)>& atom) const;

  std::vector<Term> terms_;  // ascending by factors, no zero coefficients
};

/// What a polynomial is made of.
struct Expression::Atom {
  enum class Kind : uint8_t { dimension, divide, modulo, minimum, maximum } kind;
  std::string name;  // of a dimension
  Expression a, b;   // of the others
};

}  // namespace heed::tools
