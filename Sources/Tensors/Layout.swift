/// The weight layout that a kernel demands: panels of rows, each panel contiguous.
///
/// The layout is named by the kernel family that defines it and described by enough numbers to compute its size and to
/// tell two layouts apart; what a panel looks like inside is the family's business.
package struct PackedLayout: Hashable, Codable, Sendable {
  /// The kernel family's name of the layout, such as `panel_w4`.
  package var name: String
  /// Rows (output channels) of a panel; the last panel is padded.
  package var rows: Int
  /// Bytes of one panel.
  package var panelBytes: Int
  /// Further numbers that tell layouts of the same name apart.
  package var parameters: [Int]

  package init(name: String, rows: Int, panelBytes: Int, parameters: [Int] = []) {
    precondition(rows > 0 && panelBytes >= 0)
    self.name = name
    self.rows = rows
    self.panelBytes = panelBytes
    self.parameters = parameters
  }

  /// Bytes of a tensor of `rows` rows.
  package func byteCount(rows count: Int) -> Int { (count + rows - 1) / rows * panelBytes }
}
