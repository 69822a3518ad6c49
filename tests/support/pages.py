"""What the tests of both pages share: hostile names, what can be read, and what a screen reader is told."""

import browser
import numpy as np
import pytest

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">&amp;{{data}}.mp4'
NO_BROWSER = browser.find() is None
in_browser = pytest.mark.skipif(NO_BROWSER, reason='no Chromium or Chrome is installed here')

# Text whose contrast with what it stands on is below 4.5 (WCAG 2, relative luminance), or that is wider than the page.
FAINT = '''(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = rgb(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.matches('script, style, noscript *')) continue;
    const [a, b] = [rgb(getComputedStyle(element).color), ground(element)].map(light).sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${element.textContent}: ${(a + 0.05) / (b + 0.05)}`);
  }
  return faint;
})()'''


def softmax(x):
  return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def assert_named(chromium):
  """Every thing that takes the focus has a name for a screen reader."""
  nodes = chromium.call('Accessibility.getFullAXTree')['nodes']
  focusable = [node for node in nodes if any(p['name'] == 'focusable' and p['value']['value'] for p in node.get('properties', ()))]
  assert len(focusable) > 1
  assert not [node['role'] for node in focusable if not node.get('name', {}).get('value')]
