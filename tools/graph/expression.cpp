#include "tools/graph/expression.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <limits>
#include <numeric>
#include <string_view>

#include "tools/error.h"

namespace heed::tools {
namespace {

using Atom = Expression::Atom;
using Term = Expression::Term;
using Factors = std::vector<std::shared_ptr<const Atom>>;

constexpr int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
constexpr size_t most_terms = 4096;  // no honest size has more; products of sums grow without bound
constexpr int deepest_text = 200;    // nesting that parse() follows

// Sizes near the ends of 64 bits only stand for "to the end" (a slice's INT64_MAX), so arithmetic saturates.
int64_t saturate(__int128 value) {
  if (value < least) return least;
  if (value > most) return most;
  return static_cast<int64_t>(value);
}
int64_t plus(int64_t a, int64_t b) {
  return saturate(__int128{a} + b);
}
int64_t times(int64_t a, int64_t b) {
  return saturate(__int128{a} * b);
}
int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) throw Error(Fault::model, "a size is divided by 0");
  if (b == -1) return saturate(-__int128{a});
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0) ? 1 : 0);
}
int64_t floor_modulo(int64_t a, int64_t b) {
  return saturate(__int128{a} - __int128{b} * floor_divide(a, b));
}

int compare(const Expression& a, const Expression& b);

int compare(const Atom& a, const Atom& b) {
  if (&a == &b) return 0;
  if (a.kind != b.kind) return a.kind < b.kind ? -1 : 1;
  if (const int names = a.name.compare(b.name)) return names;
  if (const int first = compare(a.a, b.a)) return first;
  return compare(a.b, b.b);
}

// By degree, then lexicographically: a monomial order (a product keeps it), which polynomial division needs.
int compare(const Factors& a, const Factors& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  for (size_t i = 0; i < a.size(); ++i)
    if (const int order = compare(*a[i], *b[i])) return order;
  return 0;
}

int compare(const Expression& a, const Expression& b) {
  const auto &x = a.terms(), &y = b.terms();
  if (x.size() != y.size()) return x.size() < y.size() ? -1 : 1;
  for (size_t i = 0; i < x.size(); ++i) {
    if (const int order = compare(x[i].factors, y[i].factors)) return order;
    if (x[i].coefficient != y[i].coefficient) return x[i].coefficient < y[i].coefficient ? -1 : 1;
  }
  return 0;
}

bool atom_less(const std::shared_ptr<const Atom>& a, const std::shared_ptr<const Atom>& b) {
  return compare(*a, *b) < 0;
}

Expression of_atom(Atom::Kind kind, std::string name, Expression a, Expression b) {
  return Expression::of({std::make_shared<const Atom>(Atom{kind, std::move(name), std::move(a), std::move(b)})}, 1);
}

// The factors of `a` without those of `b`, where all of those are there.
std::optional<Factors> without(const Factors& a, const Factors& b) {
  if (!std::includes(a.begin(), a.end(), b.begin(), b.end(), atom_less)) return std::nullopt;
  Factors rest;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(rest), atom_less);
  return rest;
}

// a = quotient * b + remainder. By a constant, coefficients of the remainder lie in [0, |b|).
struct Quotient {
  Expression quotient, remainder;
};
Quotient long_division(const Expression& a, const Expression& b) {
  Quotient result;
  Expression rest = a;
  const Term lead = b.terms().back();
  while (!rest.terms().empty()) {
    const Term top = rest.terms().back();
    const auto factors = without(top.factors, lead.factors);
    int64_t coefficient = 0;
    if (factors && (b.constant() || top.coefficient % lead.coefficient == 0))
      coefficient = floor_divide(top.coefficient, lead.coefficient);
    if (coefficient != 0) {
      const Expression part = Expression::of(*factors, coefficient);
      result.quotient = result.quotient + part;
      rest = rest - part * b;
    }
    if (!rest.terms().empty() && compare(rest.terms().back().factors, top.factors) == 0) {
      const Expression kept = Expression::of(top.factors, rest.terms().back().coefficient);
      result.remainder = result.remainder + kept;
      rest = rest - kept;
    }
  }
  return result;
}

// The greatest common divisor of all coefficients.
int64_t content(const Expression& a, int64_t start = 0) {
  for (const Term& term : a.terms()) start = std::gcd(start, term.coefficient);
  return start;
}

// Atoms that every term of both has.
Factors common_factors(const Expression& a, const Expression& b) {
  std::optional<Factors> common;
  for (const Expression* each : {&a, &b})
    for (const Term& term : each->terms()) {
      if (!common) {
        common = term.factors;
        continue;
      }
      Factors both;
      std::set_intersection(common->begin(), common->end(), term.factors.begin(), term.factors.end(),
                            std::back_inserter(both), atom_less);
      common = std::move(both);
    }
  return common.value_or(Factors{});
}

// The only atom of an expression that is nothing but it.
const Atom* sole_atom(const Expression& a) {
  if (a.terms().size() != 1 || a.terms()[0].coefficient != 1 || a.terms()[0].factors.size() != 1) return nullptr;
  return a.terms()[0].factors[0].get();
}

bool is_operand_of(const Expression& a, const Expression& of, Atom::Kind kind) {
  const Atom* atom = sole_atom(of);
  return atom != nullptr && atom->kind == kind && (atom->a == a || atom->b == a);
}

Expression extreme(const Expression& a, const Expression& b, Atom::Kind kind) {
  const bool minimum = kind == Atom::Kind::minimum;
  if (const auto difference = (a - b).constant()) return (*difference < 0) == minimum ? a : b;
  const Atom::Kind other = minimum ? Atom::Kind::maximum : Atom::Kind::minimum;
  if (is_operand_of(a, b, other) || is_operand_of(b, a, kind)) return a;
  if (is_operand_of(b, a, other) || is_operand_of(a, b, kind)) return b;
  return a < b ? of_atom(kind, {}, a, b) : of_atom(kind, {}, b, a);
}

Expression combine(Atom::Kind kind, const Expression& a, const Expression& b) {
  switch (kind) {
    case Atom::Kind::divide:
      return Expression::divide(a, b);
    case Atom::Kind::modulo:
      return Expression::modulo(a, b);
    default:
      return extreme(a, b, kind);
  }
}

// --- Bounds ----------------------------------------------------------------------------------------------------------

using Range = Expression::Range;
using Dimensions = std::map<std::string, Dimension>;

Range interval(const Expression& e, const Dimensions& dimensions);

Range interval(const Atom& atom, const Dimensions& dimensions) {
  if (atom.kind == Atom::Kind::dimension) {
    const auto found = dimensions.find(atom.name);
    if (found == dimensions.end()) throw Error(Fault::model, "the dimension '" + atom.name + "' has no range");
    return {found->second.lower, found->second.upper};
  }
  const Range a = interval(atom.a, dimensions), b = interval(atom.b, dimensions);
  switch (atom.kind) {
    case Atom::Kind::minimum:
      return {std::min(a.lower, b.lower), std::min(a.upper, b.upper)};
    case Atom::Kind::maximum:
      return {std::max(a.lower, b.lower), std::max(a.upper, b.upper)};
    case Atom::Kind::modulo:
      if (b.lower <= 0) return {least, most};
      return {0, a.lower >= 0 ? std::min(a.upper, b.upper - 1) : b.upper - 1};
    default:
      break;
  }
  if (b.lower <= 0 && b.upper >= 0) return {least, most};
  const int64_t corners[] = {floor_divide(a.lower, b.lower), floor_divide(a.lower, b.upper),
                             floor_divide(a.upper, b.lower), floor_divide(a.upper, b.upper)};
  return {*std::min_element(corners, corners + 4), *std::max_element(corners, corners + 4)};
}

Range interval(const Expression& e, const Dimensions& dimensions) {
  Range sum{0, 0};
  for (const Term& term : e.terms()) {
    Range product{term.coefficient, term.coefficient};
    for (const auto& factor : term.factors) {
      const Range f = interval(*factor, dimensions);
      const int64_t corners[] = {times(product.lower, f.lower), times(product.lower, f.upper),
                                 times(product.upper, f.lower), times(product.upper, f.upper)};
      product = {*std::min_element(corners, corners + 4), *std::max_element(corners, corners + 4)};
    }
    sum = {plus(sum.lower, product.lower), plus(sum.upper, product.upper)};
  }
  return sum;
}

// How an expression moves when one dimension grows: 1 never down, -1 never up, 0 not at all, nothing where unknown.
std::optional<int> direction(const Expression& e, const std::string& name, const Dimensions& dimensions);

std::optional<int> direction(const Atom& atom, const std::string& name, const Dimensions& dimensions) {
  if (atom.kind == Atom::Kind::dimension) return atom.name == name ? 1 : 0;
  const auto a = direction(atom.a, name, dimensions), b = direction(atom.b, name, dimensions);
  if (!a || !b) return std::nullopt;
  if (*a == 0 && *b == 0) return 0;
  if (atom.kind == Atom::Kind::modulo) return std::nullopt;
  if (atom.kind == Atom::Kind::divide) {
    const Range divisor = interval(atom.b, dimensions);
    if (*b != 0 || divisor.lower <= 0) return std::nullopt;
    return a;
  }
  if (*a != 0 && *b != 0 && *a != *b) return std::nullopt;
  return *a != 0 ? a : b;
}

std::optional<int> direction(const Expression& e, const std::string& name, const Dimensions& dimensions) {
  bool only_dimensions = true;
  Expression derivative;
  int together = 0;
  for (const Term& term : e.terms()) {
    int64_t power = 0;
    for (const auto& factor : term.factors) {
      only_dimensions = only_dimensions && factor->kind == Atom::Kind::dimension;
      power += factor->kind == Atom::Kind::dimension && factor->name == name;
    }
    if (!only_dimensions) break;
    if (power == 0) continue;
    Factors rest = term.factors;
    rest.erase(std::find_if(rest.begin(), rest.end(), [&](const auto& factor) { return factor->name == name; }));
    derivative = derivative + Expression::of(rest, times(term.coefficient, power));
  }
  if (only_dimensions) {
    const Range slope = interval(derivative, dimensions);
    if (slope.lower == 0 && slope.upper == 0) return 0;
    if (slope.lower >= 0) return 1;
    if (slope.upper <= 0) return -1;
    return std::nullopt;
  }
  for (const Term& term : e.terms()) {  // a product of factors that are never negative moves as they do
    int moves = 0;
    for (const auto& factor : term.factors) {
      const auto own = direction(*factor, name, dimensions);
      if (!own || (*own != 0 && moves != 0 && *own != moves)) return std::nullopt;
      if (*own != 0) moves = *own;
    }
    if (moves == 0) continue;
    for (const auto& factor : term.factors)
      if (term.factors.size() > 1 && interval(*factor, dimensions).lower < 0) return std::nullopt;
    if (term.coefficient < 0) moves = -moves;
    if (together != 0 && moves != together) return std::nullopt;
    together = moves;
  }
  return together;
}

// --- Text ------------------------------------------------------------------------------------------------------------

bool starts_name(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_';
}
bool continues_name(char c) {
  return starts_name(c) || std::isdigit(static_cast<unsigned char>(c)) || c == '.' || c == ':';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::optional<Expression> all() {
    auto result = sum();
    skip();
    return at_ == text_.size() ? result : std::nullopt;
  }

 private:
  using Result = std::optional<Expression>;

  Result sum() {
    Result left = product();
    while (left) {
      const bool add = take("+");
      if (!add && !take("-")) break;
      const Result right = product();
      if (!right) return std::nullopt;
      left = add ? *left + *right : *left - *right;
    }
    return left;
  }

  Result product() {
    Result left = factor();
    while (left) {
      const char kind = take("*") ? '*' : take("//") ? '/' : take("%") ? '%' : 0;
      if (kind == 0) break;
      const Result right = factor();
      if (!right || (kind != '*' && right->is_constant(0))) return std::nullopt;
      left = kind == '*'   ? *left * *right
             : kind == '/' ? Expression::divide(*left, *right)
                           : Expression::modulo(*left, *right);
    }
    return left;
  }

  Result factor() {
    if (++depth_ > deepest_text) return std::nullopt;
    Result result = factor_inside();
    --depth_;
    return result;
  }

  Result factor_inside() {
    if (take("-")) {
      const Result operand = factor();
      return operand ? Result(Expression(0) - *operand) : std::nullopt;
    }
    if (take("(")) {
      Result inside = sum();
      return take(")") ? inside : std::nullopt;
    }
    skip();
    if (at_ == text_.size()) return std::nullopt;
    if (std::isdigit(static_cast<unsigned char>(text_[at_]))) {
      int64_t value = 0;
      for (; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])); ++at_)
        value = plus(times(value, 10), text_[at_] - '0');
      return at_ < text_.size() && starts_name(text_[at_]) ? std::nullopt : Result(Expression(value));
    }
    if (!starts_name(text_[at_])) return std::nullopt;
    const size_t start = at_;
    while (at_ < text_.size() && continues_name(text_[at_])) ++at_;
    const std::string name(text_.substr(start, at_ - start));
    if (!take("(")) return Expression::dimension(name);
    if (name != "min" && name != "max") return std::nullopt;
    const Result a = sum();
    if (!a || !take(",")) return std::nullopt;
    const Result b = sum();
    if (!b || !take(")")) return std::nullopt;
    return name == "min" ? Expression::minimum(*a, *b) : Expression::maximum(*a, *b);
  }

  void skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(std::string_view token) {
    skip();
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

std::string operand_text(const Expression& e) {
  const Atom* atom = sole_atom(e);
  const bool plain = (e.constant() && *e.constant() >= 0) ||
                     (atom != nullptr && atom->kind != Atom::Kind::divide && atom->kind != Atom::Kind::modulo);
  return plain ? e.text() : "(" + e.text() + ")";
}

std::string atom_text(const Atom& atom, bool alone) {
  switch (atom.kind) {
    case Atom::Kind::dimension:
      return atom.name;
    case Atom::Kind::minimum:
      return "min(" + atom.a.text() + ", " + atom.b.text() + ")";
    case Atom::Kind::maximum:
      return "max(" + atom.a.text() + ", " + atom.b.text() + ")";
    default:
      break;
  }
  const std::string text =
      operand_text(atom.a) + (atom.kind == Atom::Kind::divide ? " // " : " % ") + operand_text(atom.b);
  return alone ? text : "(" + text + ")";
}

}  // namespace

Expression::Expression(int64_t constant) {
  if (constant != 0) terms_.push_back({{}, constant});
}

Expression Expression::dimension(const std::string& name) {
  return of_atom(Atom::Kind::dimension, name, 0, 0);
}

Expression Expression::of(Factors factors, int64_t coefficient) {
  Expression result;
  if (coefficient != 0) result.terms_.push_back({std::move(factors), coefficient});
  return result;
}

std::optional<int64_t> Expression::constant() const {
  if (terms_.empty()) return 0;
  if (terms_.size() == 1 && terms_[0].factors.empty()) return terms_[0].coefficient;
  return std::nullopt;
}

Expression operator+(const Expression& a, const Expression& b) {
  Expression sum;
  auto x = a.terms_.begin(), y = b.terms_.begin();
  while (x != a.terms_.end() || y != b.terms_.end()) {
    const int order = x == a.terms_.end() ? 1 : y == b.terms_.end() ? -1 : compare(x->factors, y->factors);
    Term term = order <= 0 ? *x : *y;
    if (order == 0) term.coefficient = plus(x->coefficient, y->coefficient);
    if (order <= 0) ++x;
    if (order >= 0) ++y;
    if (term.coefficient != 0) sum.terms_.push_back(std::move(term));
  }
  if (sum.terms_.size() > most_terms) throw Error(Fault::model, "a size has more than 4096 terms");
  return sum;
}

Expression operator-(const Expression& a, const Expression& b) {
  return a + Expression(-1) * b;
}

Expression operator*(const Expression& a, const Expression& b) {
  Expression product;
  for (const Term& x : a.terms_)
    for (const Term& y : b.terms_) {
      Factors factors;
      std::merge(x.factors.begin(), x.factors.end(), y.factors.begin(), y.factors.end(), std::back_inserter(factors),
                 atom_less);
      product = product + Expression::of(std::move(factors), times(x.coefficient, y.coefficient));
    }
  return product;
}

bool operator==(const Expression& a, const Expression& b) {
  return compare(a, b) == 0;
}
bool operator<(const Expression& a, const Expression& b) {
  return compare(a, b) < 0;
}

Expression Expression::divide(const Expression& a, const Expression& b) {
  if (b.terms_.empty()) throw Error(Fault::model, "a size is divided by 0");
  if (b.terms_.back().coefficient < 0) return divide(Expression(0) - a, Expression(0) - b);
  auto [quotient, remainder] = long_division(a, b);
  if (remainder.terms_.empty()) return quotient;
  if (b.constant() && remainder.constant()) return quotient;  // 0 <= remainder < b
  const Expression &top = remainder, &bottom = b;
  const Expression shared = common_divisor(top, bottom);
  if (!shared.is_constant(1))
    return quotient + divide(long_division(top, shared).quotient, long_division(bottom, shared).quotient);
  const Atom* nested = sole_atom(top);  // (x // 2) // 3 is x // 6
  if (nested != nullptr && nested->kind == Atom::Kind::divide && bottom.constant() && nested->b.constant() &&
      *nested->b.constant() > 0)
    return quotient + divide(nested->a, nested->b * bottom);
  return quotient + of_atom(Atom::Kind::divide, {}, top, bottom);
}

Expression Expression::common_divisor(const Expression& a, const Expression& b) {
  return of(common_factors(a, b), std::max<int64_t>(content(b, content(a)), 1));
}

Expression Expression::modulo(const Expression& a, const Expression& b) {
  if (b.terms_.empty()) throw Error(Fault::model, "a size is divided by 0");
  const Expression remainder = long_division(a, b).remainder;
  if (const auto x = remainder.constant(), y = b.constant(); x && y) return floor_modulo(*x, *y);
  if (remainder.terms_.empty()) return 0;
  return of_atom(Atom::Kind::modulo, {}, remainder, b);
}

Expression Expression::minimum(const Expression& a, const Expression& b) {
  return extreme(a, b, Atom::Kind::minimum);
}
Expression Expression::maximum(const Expression& a, const Expression& b) {
  return extreme(a, b, Atom::Kind::maximum);
}

int64_t Expression::evaluate(const std::map<std::string, int64_t>& dimensions) const {
  int64_t sum = 0;
  for (const Term& term : terms_) {
    int64_t product = term.coefficient;
    for (const auto& factor : term.factors) {
      int64_t value = 0;
      if (factor->kind == Atom::Kind::dimension) {
        const auto found = dimensions.find(factor->name);
        if (found == dimensions.end()) throw Error(Fault::model, "the dimension '" + factor->name + "' has no value");
        value = found->second;
      } else {
        const int64_t a = factor->a.evaluate(dimensions), b = factor->b.evaluate(dimensions);
        value = *combine(factor->kind, a, b).constant();
      }
      product = times(product, value);
    }
    sum = plus(sum, product);
  }
  return sum;
}

Expression::Range Expression::range(const std::map<std::string, Dimension>& dimensions) const {
  Range bounds = interval(*this, dimensions);
  std::vector<std::string> names;
  collect(names);
  std::map<std::string, int64_t> low, high;
  bool monotone = true;
  int64_t points = 1;
  for (const std::string& name : names) {
    const Dimension& dimension = dimensions.at(name);
    const auto moves = direction(*this, name, dimensions);
    monotone = monotone && moves;
    low[name] = moves == -1 ? dimension.upper : dimension.lower;
    high[name] = moves == -1 ? dimension.lower : dimension.upper;
    points = times(points, plus(dimension.upper - dimension.lower, 1));
  }
  if (monotone) return {evaluate(low), evaluate(high)};
  if (points > 4096) return bounds;
  bounds = {most, least};  // few enough points to try each
  const std::function<void(size_t)> visit = [&](size_t i) {
    if (i == names.size()) {
      const int64_t value = evaluate(low);
      bounds = {std::min(bounds.lower, value), std::max(bounds.upper, value)};
      return;
    }
    const Dimension& dimension = dimensions.at(names[i]);
    for (low[names[i]] = dimension.lower; low[names[i]] <= dimension.upper; ++low[names[i]]) visit(i + 1);
  };
  visit(0);
  return bounds;
}

void Expression::collect(std::vector<std::string>& names) const {
  for (const Term& term : terms_)
    for (const auto& factor : term.factors) {
      if (factor->kind != Atom::Kind::dimension) {
        factor->a.collect(names);
        factor->b.collect(names);
      } else if (std::find(names.begin(), names.end(), factor->name) == names.end()) {
        names.push_back(factor->name);
      }
    }
}

Expression Expression::rebuild(const std::function<Expression(const Atom&)>& atom) const {
  Expression sum;
  for (const Term& term : terms_) {
    Expression product(term.coefficient);
    for (const auto& factor : term.factors) product = product * atom(*factor);
    sum = sum + product;
  }
  return sum;
}

Expression Expression::substitute(const std::string& name, const Expression& value) const {
  return rebuild([&](const Atom& atom) {
    if (atom.kind == Atom::Kind::dimension) return atom.name == name ? value : dimension(atom.name);
    return combine(atom.kind, atom.a.substitute(name, value), atom.b.substitute(name, value));
  });
}

Expression Expression::simplify(const std::map<std::string, Dimension>& dimensions) const {
  return rebuild([&](const Atom& atom) {
    if (atom.kind == Atom::Kind::dimension) {
      const auto [lower, upper] = interval(atom, dimensions);
      return lower == upper ? Expression(lower) : dimension(atom.name);
    }
    const Expression a = atom.a.simplify(dimensions), b = atom.b.simplify(dimensions);
    const Range difference = (a - b).range(dimensions);
    if (atom.kind == Atom::Kind::minimum && difference.upper <= 0) return a;
    if (atom.kind == Atom::Kind::minimum && difference.lower >= 0) return b;
    if (atom.kind == Atom::Kind::maximum && difference.lower >= 0) return a;
    if (atom.kind == Atom::Kind::maximum && difference.upper <= 0) return b;
    const Expression result = combine(atom.kind, a, b);
    if (atom.kind == Atom::Kind::modulo && difference.upper < 0 && a.range(dimensions).lower >= 0) return a;
    const Range bounds = result.range(dimensions);
    return bounds.lower == bounds.upper ? Expression(bounds.lower) : result;
  });
}

std::string Expression::text() const {
  if (terms_.empty()) return "0";
  std::string text;
  for (auto term = terms_.rbegin(); term != terms_.rend(); ++term) {
    const bool negative = term->coefficient < 0;
    text += text.empty() ? (negative ? "-" : "") : (negative ? " - " : " + ");
    std::string product;
    const std::string magnitude = std::to_string(term->coefficient).substr(negative ? 1 : 0);
    if (magnitude != "1" || term->factors.empty()) product = magnitude;
    const bool alone = terms_.size() == 1 && term->factors.size() == 1 && term->coefficient == 1;
    for (const auto& factor : term->factors) product += (product.empty() ? "" : " * ") + atom_text(*factor, alone);
    text += product;
  }
  return text;
}

std::optional<Expression> Expression::parse(const std::string& text) {
  return Parser(text).all();
}

}  // namespace heed::tools
