"""Checks what holds for every page: hostile names are harmless, texts readable, controls named."""

import browser
import numpy as np
import pytest

HOSTILE = (
  '</script><script>window.hacked = 1</script>'
  '<img src=x onerror="window.hacked = 1">&amp;{{data}}.mp4'
)
# Elements that a page must not let take effect, even if a fault of ours lets them in.
INJECTED = """
<script>window.hacked = 'script'</script>
<script src="data:text/javascript,window.hacked = 'data'"></script>
<img src="x" onerror="window.hacked = 'error'">
<svg onload="window.hacked = 'load'"></svg>
<iframe srcdoc="<script>parent.hacked = 'frame'</script>"></iframe>
<iframe src="https://stranger.invalid/frame"></iframe>
<object data="https://stranger.invalid/object"></object>
<link rel="stylesheet" href="https://stranger.invalid/style.css">
<meta http-equiv="refresh" content="9999">
<base href="https://stranger.invalid/">
<style>#injected { color: rgb(1, 2, 3); }</style>
<p id="injected" style="background: rgb(4, 5, 6)">a text</p>
<a id="link" href="javascript:window.hacked = 'link'">a link</a>
<form action="https://stranger.invalid/form"><button id="send">send</button></form>
"""
in_browser = pytest.mark.skipif(
  browser.find() is None, reason='no Chromium or Chrome is installed here'
)

# JavaScript that lists the texts whose contrast with their background is below 4.5 (WCAG 2).
FAINT = """(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const background = element => {
    for (; element; element = element.parentElement) {
      const colour = rgb(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.matches('script, style, noscript *')) continue;
    const [light, dark] = [rgb(getComputedStyle(element).color), background(element)]
      .map(luminance).sort((x, y) => y - x);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) faint.push(`${element.textContent}: ${contrast}`);
  }
  return faint;
})()"""


def softmax(x):
  """Softmax over the columns of (N,K)."""
  return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def assert_policy_holds(chromium, page):
  """Asserts that nothing takes effect of what is put into a page, while the page works.

  page: its file, which is overwritten.
  """
  text = page.read_text()
  assert text.count('<header>') == 1
  page.write_text(text.replace('<header>', f'{INJECTED}<header>'))
  chromium.open(page)
  chromium.evaluate('["link", "send"].forEach(id => document.getElementById(id).click())')
  chromium.evaluate('new Promise(done => setTimeout(done, 200))')
  assert chromium.evaluate('window.hacked') is None
  assert chromium.evaluate('location.protocol + document.baseURI.slice(0, 5)') == 'file:file:'
  colours = chromium.evaluate(
    '(style => [style.color, style.backgroundColor])'
    '(getComputedStyle(document.getElementById("injected")))'
  )
  assert colours == ['rgb(26, 31, 37)', 'rgba(0, 0, 0, 0)']  # those of style.css
  assert len(chromium.errors) > 8
  assert all('Content Security Policy' in error for error in chromium.errors), chromium.errors
  chromium.errors.clear()


def assert_named(chromium):
  """Asserts that every element that can take the focus has a name for screen readers."""

  def is_focusable(node):
    properties = node.get('properties', ())
    return any(p['name'] == 'focusable' and p['value']['value'] for p in properties)

  nodes = chromium.call('Accessibility.getFullAXTree')['nodes']
  focusable = [node for node in nodes if is_focusable(node)]
  assert len(focusable) > 1
  assert not [node['role'] for node in focusable if not node.get('name', {}).get('value')]
