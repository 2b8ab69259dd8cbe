-- KEYS[7] dead letters. ARGV: group, worker, nonce, entry, most attempts, result ttl, tombstone ttl, body if late,
-- body if worn out, hash of the worker's model, longest list of dead letters, reason if worn out.
-- Returns {'claimed', epoch, attempts, seq, ms since submit, base, 1 if begun anew, params, tenant} | {'ended', state, why} |
-- {'gone'}.
local group, worker, nonce, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local pending = redis.call('XPENDING', KEYS[3], group, entry, entry, 1)
if #pending == 0 or pending[1][2] ~= worker then
  return {'gone'}
end
local state = field('state')
if field('entry') ~= entry or state == '' or is_terminal(state) then
  leave_queue(group, entry)
  return {'gone'}
end
if field('nonce') ~= nonce then
  if field('cancel') == '1' then
    conclude(group, 'canceled', '{}', ARGV[6], ARGV[7])
    return {'ended', 'canceled', 'canceled'}
  end
  if is_late() then
    conclude(group, 'failed', ARGV[8], ARGV[6], ARGV[7])
    return {'ended', 'failed', 'late'}
  end
  if number('attempts') >= tonumber(ARGV[5]) then
    conclude(group, 'failed', ARGV[9], ARGV[6], ARGV[7])
    redis.call('XADD', KEYS[7], 'MAXLEN', ARGV[11], '*', 'job', field('id'), 'model', field('model'),
      'reason', ARGV[12], 'attempts', field('attempts'), 'at', now, 'params', field('params'), 'tenant', field('tenant'))
    return {'ended', 'failed', 'worn_out'}
  end
  local attempts = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
  local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
  local is_other_model = epoch > 1 and field('hash') ~= ARGV[10]
  redis.call('HSET', KEYS[1], 'state', 'running', 'owner', worker, 'nonce', nonce, 'hash', ARGV[10])
  if redis.call('HSETNX', KEYS[1], 'started', now) == 1 then
    append('started', '{"attempt":' .. attempts .. '}')
  elseif is_other_model then
    -- Said here and not by the worker: if it died before it said so, the next one would mix two models' tokens.
    redis.call('HSET', KEYS[1], 'base', number('seq'), 'anew', epoch, 'done', 0)
    redis.call('DEL', 'out:' .. field('id'), 'val:' .. field('id'))
    local zeros = string.rep('0,', cjson.decode(field('params')).n):sub(1, -2)
    append('restarted', '{"attempt":' .. attempts .. ',"known":[' .. zeros .. '],"reason":"model_changed"}')
  end
end
return {'claimed', field('epoch'), field('attempts'), field('seq'), now - number('created'), number('base'),
  field('anew') == field('epoch') and 1 or 0, field('params'),
  field('tenant')}
