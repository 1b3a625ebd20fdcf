/// The language that kernels are printed in; everything else of a program is C.
package enum KernelLanguage: String, Hashable, Sendable, CaseIterable {
  case c, swift
}
